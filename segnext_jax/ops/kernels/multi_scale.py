"""Kernels of the multi-scale attention.

Each value takes 103 multiply-adds (5x5, and 7 + 11 + 21 twice) and, in bfloat16, 4
bytes of traffic. An H100 (132 SMs x 128 lanes x 1.7 GHz, 3.35 TB/s) needs 3.6 ps for
the arithmetic and 1.2 ps for the traffic. So arithmetic is the limit, and two kernels
that each read and write every value once take no longer than one kernel would. A single
kernel would also need results of the 5x5 from neighbouring lanes.

- Forward: the square, and all strips.
- Backward: all strips of the cotangent, since a row strip and a column strip with zero
  padding can be exchanged; the gradients of the square; those of the strips' weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.kernels.depthwise_gelu import turned, weighted
from segnext_jax.ops.kernels.plane_program import PlaneProgram, Planes
from segnext_jax.ops.kernels.row_program import (
    Layout,
    Program,
    sum_type,
)
from segnext_jax.ops.kernels.targets import GPU, Target


class Strip(NamedTuple):
    """A pair of strips in the packed weights: taps and bias of a row, of a column.

    Attributes:
      row: Taps of the row, an odd number.
      column: Taps of the column, an odd number.
      start: Index of the first of all.
    """

    row: int
    column: int
    start: int

    @property
    def column_start(self) -> int:
        """Index of the column's first tap."""
        return self.start + self.row + 1

    @property
    def stop(self) -> int:
        """Index after the last."""
        return self.column_start + self.column + 1


def strips(lengths: list[tuple[int, int]]) -> tuple[Strip, ...]:
    """Return the places of pairs with these numbers of taps, in this order."""
    pairs, start = [], 0
    for row, column in lengths:
        pairs.append(Strip(row, column, start))
        start = pairs[-1].stop
    return tuple(pairs)


def _shifts(length: int) -> range:
    """Return how far each tap's value is from the pixel."""
    return range(-(length // 2), length // 2 + 1)


def _row(
    program: Program | PlaneProgram,
    packed,
    pair: Strip,
    values: dict[int, Array],
    bias: bool,
) -> Array:
    """Return a row strip's sum of values by their shift."""
    total = program.weight(packed, pair.start + pair.row) if bias else program.zero
    for tap, shift in enumerate(_shifts(pair.row)):
        total += program.weight(packed, pair.start + tap) * values[shift]
    return total


def _strips_kernel(
    images, packed, output, *, layout: Layout | Planes, pairs: tuple[Strip, ...]
):
    program = layout.program(packed.dtype)
    height = layout.shape[1]
    reach = max(pair.column for pair in pairs) // 2
    row_reach = max(pair.row for pair in pairs) // 2
    start = jnp.maximum(program.top - reach, 0)
    stop = jnp.minimum(program.bottom + reach, height)

    def finish(row: Array, sums: list[Array]) -> list[Array]:
        """Write the row that nothing more is added to."""
        bias = sum((program.weight(packed, pair.stop - 1) for pair in pairs), sums[0])
        program.write(output, row - reach, bias)
        return [*sums[1:], program.zero]

    def step(row: Array, sums: list[Array]) -> list[Array]:
        # sums[i] is output row `row - reach + i`.
        shifts = range(-row_reach, row_reach + 1)
        values = {shift: program.read(images, row, shift) for shift in shifts}
        sums[reach] += values[0]
        for pair in pairs:
            strip = _row(program, packed, pair, values, bias=True)
            for tap, shift in enumerate(_shifts(pair.column)):
                weight = program.weight(packed, pair.column_start + tap)
                sums[reach - shift] += weight * strip
        return finish(row, sums)

    sums = lax.fori_loop(start, stop, step, [program.zero] * (2 * reach + 1))
    lax.fori_loop(stop, stop + jnp.int32(reach), finish, sums)


def _square_gradients_kernel(
    images,
    cotangent,
    packed,
    output,
    totals,
    *,
    layout: Layout | Planes,
    size: tuple[int, int],
):
    program = layout.program(packed.dtype)
    weights = turned(program, packed, size)
    count = len(weights)

    def row_fn(row: Array, window: list[Array], sums: list[Array]) -> list[Array]:
        program.write(output, row, weighted(window, weights))
        value = program.read(images, row)
        *taps, bias = sums
        # Taps of the turned kernel, which slides over the cotangent.
        products = (
            program.add(t, value * v) for t, v in zip(taps, window, strict=True)
        )
        return [*products, program.add(bias, window[len(window) // 2])]

    sums = program.walk_windows(cotangent, size, row_fn, [program.zero_sum] * count)
    for index, total in enumerate(sums):
        program.write_total(totals, index, count, total)


def _strip_gradients_kernel(
    images,
    cotangent,
    packed,
    totals,
    *,
    layout: Layout | Planes,
    pairs: tuple[Strip, ...],
):
    program = layout.program(packed.dtype)

    def row_fn(row: Array, sums: list[Array]) -> list[Array]:
        row_reach = max(pair.row for pair in pairs) // 2
        shifts = range(-row_reach, row_reach + 1)
        beside = {shift: program.read(images, row, shift) for shift in shifts}
        forward = [_row(program, packed, pair, beside, bias=True) for pair in pairs]
        reach = max(pair.column for pair in pairs) // 2
        own = program.read(cotangent, row)
        backward = [program.zero for _ in pairs]
        sums = list(sums)
        for shift in range(-reach, reach + 1):
            value = program.read(cotangent, row + shift)
            for index, pair in enumerate(pairs):
                if abs(shift) > pair.column // 2:
                    continue
                # The row strip's result here went into the result there.
                place = pair.column_start + pair.column // 2 - shift
                backward[index] += program.weight(packed, place) * value
                sums[place] = program.add(sums[place], forward[index] * value)
        for pair, values in zip(pairs, backward, strict=True):
            for tap, shift in enumerate(_shifts(pair.row)):
                place = pair.start + tap
                sums[place] = program.add(sums[place], beside[shift] * values)
            place = pair.start + pair.row
            sums[place] = program.add(sums[place], values)
        # The biases of all columns have one gradient.
        sums[-1] = program.add(sums[-1], own)
        return sums

    count = pairs[-1].stop
    sums = program.walk(row_fn, [program.zero_sum] * count)
    for pair in pairs:
        sums[pair.stop - 1] = sums[-1]
    for index, total in enumerate(sums):
        program.write_total(totals, index, count, total)


def _layout(images: Array, values_per_lane: int, min_rows: int, target: Target):
    # Two programs for each of 132 multiprocessors, which have the registers for no
    # more.
    return target.layout(images, values_per_lane, min_programs=264, min_rows=min_rows)


def add_strips(
    images: Float[Array, "batch height width channels"],
    packed: Float[Array, "taps channels"],
    *,
    pairs: tuple[Strip, ...],
    target: Target = GPU,
) -> Float[Array, "batch height width channels"]:
    """Return ``images + sum_i column_i(row_i(images))``.

    Args:
      images: Feature maps, of less than 2^31 values.
      packed: Weights of all pairs, in the type of the sums.
      pairs: Their places; at least one.
      target: The platform.
    """
    # Twenty rows are computed by the neighbours of a program, too.
    (output,) = _layout(images, 4, 32, target).call(
        _strips_kernel,
        "multi_scale_strips",
        [jax.ShapeDtypeStruct(images.shape, images.dtype)],
        images,
        packed,
        pairs=pairs,
    )
    return output


def square_gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    packed: Float[Array, "taps channels"],
    *,
    size: tuple[int, ...],
    target: Target = GPU,
) -> tuple[
    Float[Array, "batch height width channels"], Float[Array, "batch taps channels"]
]:
    """Return gradients of a convolution by its images, and by its taps and bias.

    Args:
      images: What it is applied to.
      cotangent: Gradient by the result.
      packed: Taps and bias.
      size: (height, width) of the kernel.
      target: See `add_strips`.

    Returns:
      The first, and each image's part of the second, for the kernel turned by 180
      degrees.
    """
    by_images, totals = _with_totals(
        _square_gradients_kernel,
        "multi_scale_square_gradients",
        _layout(images, 2, 8, target),
        [jax.ShapeDtypeStruct(images.shape, images.dtype)],
        *(images, cotangent, packed),
        size=size,
    )
    return by_images, totals


def strip_gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    packed: Float[Array, "taps channels"],
    *,
    pairs: tuple[Strip, ...],
    target: Target = GPU,
) -> Float[Array, "batch taps channels"]:
    """Return each image's part of the gradients by the packed weights of strips.

    Args:
      images: What the strips are applied to.
      cotangent: Gradient by the result of `add_strips`.
      packed: See `add_strips`, as for the others.
      pairs: See there.
      target: See there.
    """
    (totals,) = _with_totals(
        _strip_gradients_kernel,
        "multi_scale_strip_gradients",
        # Each lane holds a sum for each of 82 taps and biases; two channels per lane
        # would spill registers.
        _layout(images, 1, 8, target),
        [],
        *(images, cotangent, packed),
        pairs=pairs,
    )
    return totals


def _with_totals(
    kernel, name: str, layout: Layout | Planes, outputs: list, *arrays: Array, **options
):
    """Return a kernel's outputs, the last of them summed over an image's programs."""
    images, _, packed = arrays
    batch, _, _, channels = images.shape
    totals = jax.ShapeDtypeStruct(
        (batch, layout.programs_of_image, packed.shape[0], channels),
        sum_type(images.dtype),
    )
    *results, parts = layout.call(kernel, name, [*outputs, totals], *arrays, **options)
    return (*results, jnp.sum(parts, axis=1))
