"""Triton kernels of a small depthwise convolution and the GELU behind it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.ops.gelu import gelu_slope, gelu_value
from segnext_jax.ops.kernels.row_program import (
    Layout,
    Program,
    call,
    make_layout,
    pack,
    sum_type,
)


def weighted(window: list[Array], weights: list[Array]) -> Array:
    """Return the sum of a window times taps; the last weight is the bias."""
    *taps, total = weights
    for value, tap in zip(window, taps, strict=True):
        total += value * tap
    return total


def _value_kernel(
    images, packed, output, *, layout: Layout, size: tuple[int, int], has_gelu: bool
):
    program = Program(layout, packed.dtype)
    weights = [program.weight(packed, i) for i in range(math.prod(size) + 1)]

    def row_fn(row: Array, window: list[Array], carry):
        values = weighted(window, weights)
        program.write(output, row, gelu_value(values) if has_gelu else values)
        return carry

    program.walk_windows(images, size, row_fn, ())


def _gradient_kernel(
    images, cotangent, packed, output, totals, *, layout: Layout, size: tuple[int, int]
):
    program = Program(layout, packed.dtype)
    count = math.prod(size) + 1
    weights = [program.weight(packed, i) for i in range(count)]

    def row_fn(row: Array, window: list[Array], sums: list[Array]) -> list[Array]:
        slope = gelu_slope(weighted(window, weights))
        values = slope * program.read(cotangent, row)
        program.write(output, row, values)
        *taps, bias = sums
        taps = [tap + v * values for tap, v in zip(taps, window, strict=True)]
        return [*taps, bias + values]

    sums = program.walk_windows(images, size, row_fn, [program.zero] * count)
    for index, total in enumerate(sums):
        program.write_total(totals, index, count, total)


def _layout(images: Array, interpret: bool) -> Layout:
    # Eight programs for each of 132 multiprocessors; two rows beside each program's
    # own are loaded by its neighbours, too.
    return make_layout(
        images.shape, 4, min_programs=1056, min_rows=8, interpret=interpret
    )


def values(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    *,
    has_gelu: bool = True,
    interpret: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Return ``gelu(conv(images) + bias)``, or without ``gelu`` its inside.

    Args:
      images: Feature maps, of less than 2^31 values.
      kernel: Of odd sizes.
      bias: Added before the GELU.
      has_gelu: Whether there is one.
      interpret: Run on any platform, slowly: for tests.
    """
    (output,) = call(
        _value_kernel,
        "depthwise_gelu" if has_gelu else "depthwise",
        _layout(images, interpret),
        [jax.ShapeDtypeStruct(images.shape, images.dtype)],
        images,
        pack(images.dtype, kernel, bias),
        size=kernel.shape[:2],
        has_gelu=has_gelu,
    )
    return output


def gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    *,
    interpret: bool = False,
) -> tuple[
    Float[Array, "batch height width channels"], Float[Array, "batch _ channels"]
]:
    """Return gradients of `values` by what the GELU sees, and by taps and bias.

    Args:
      images: See `values`, as for the others.
      cotangent: Gradient by the result.
      kernel: See `values`.
      bias: See `values`.
      interpret: See `values`.

    Returns:
      The gradient by the convolution's result; and each image's part of those by the
      taps, row by row, and the bias: [batch, taps + 1, channels].
    """
    layout = _layout(images, interpret)
    batch, _, _, channels = images.shape
    count = kernel.shape[0] * kernel.shape[1] + 1
    totals = (batch, layout.programs_of_image, count, channels)
    inner, totals = call(
        _gradient_kernel,
        "depthwise_gelu_gradient",
        layout,
        [
            jax.ShapeDtypeStruct(images.shape, images.dtype),
            jax.ShapeDtypeStruct(totals, sum_type(images.dtype)),
        ],
        images,
        cotangent,
        pack(images.dtype, kernel, bias),
        size=kernel.shape[:2],
    )
    return inner, jnp.sum(totals, axis=1)
