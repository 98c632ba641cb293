"""Kernels of the gradients of the multi-scale attention's weights.

Sums over pixels stay in registers, one for each tap, and each program writes its own,
without atomic operations: the same sums in the same order every time. A kernel for the
square and one for each strip pair, since all taps' sums are more than a lane has
registers. What lies between a pair's strips is computed again, in both directions.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.pallas_program import Layout, Program, call_kernel


def _square_gradient_kernel(images, cotangent, output, *, layout: Layout):
    _square_gradient(Program(layout, output.dtype), images, cotangent, output)


def _pair_gradients_kernel(local, cotangent, weights, output, *, layout: Layout):
    program = Program(layout, weights.dtype)
    _column_gradients(program, local, cotangent, weights, output)
    _row_gradients(program, local, cotangent, weights, output)


def _sum_over_rows(program: Program, num_sums: int, chunk_fn: Callable) -> list[Array]:
    """Add up what `chunk_fn(first_row, sums)` adds, over the program's rows."""
    zero = jnp.zeros(program.group.shape, program.sums)
    at_once = program.layout.tile.rows_at_once
    return lax.fori_loop(
        jnp.int32(0),
        program.chunks(program.top, program.bottom),
        lambda index, sums: chunk_fn(program.top + index * at_once, list(sums)),
        [zero] * num_sums,
    )


def _square_gradient(program: Program, images, local_cotangent, output) -> None:
    height, width = program.layout.sizes.square
    taps, tile = height * width, program.layout.tile

    def chunk(first: Array, sums: list[Array]) -> list[Array]:
        gradient = program.own(
            {
                (row, column): program.read(local_cotangent, first + row, column)
                for row, column in program.pixels()
            },
            first,
        )
        for value in gradient.values():
            sums[taps] += value
        for row in range(-(height // 2), tile.rows_at_once + height // 2):
            for column in range(-(width // 2), tile.columns_at_once + width // 2):
                value = program.read(images, first + row, column)
                for pixel in program.pixels():
                    i = row - pixel[0] + height // 2
                    j = column - pixel[1] + width // 2
                    if 0 <= i < height and 0 <= j < width:
                        sums[i * width + j] += value * gradient[pixel]
        return sums

    for index, total in enumerate(_sum_over_rows(program, taps + 1, chunk)):
        program.write_total(output, index, total)


def _column_gradients(program: Program, local, cotangent, weights, output) -> None:
    sizes, tile = program.layout.sizes, program.layout.tile
    reach = sizes.column_reach
    _, firsts = sizes.first_taps()
    starts = [sum(sizes.columns[:index]) for index in range(len(firsts))]
    num_taps = sum(sizes.columns)

    def chunk(first: Array, sums: list[Array]) -> list[Array]:
        read = lambda row, column: program.read(local, first + row, column)  # noqa: E731
        strips = [program.own(strip, first) for strip in program.rows(read, weights)]
        for row in range(-reach, tile.rows_at_once + reach):
            for column in range(tile.columns_at_once):
                value = program.read(cotangent, first + row, column)
                if 0 <= row < tile.rows_at_once:
                    own = program.own({(row, column): value}, first)
                    sums[num_taps] += own[row, column]
                for strip, start, length in zip(
                    strips, starts, sizes.columns, strict=True
                ):
                    for source in range(tile.rows_at_once):
                        tap = source - row + length // 2
                        if 0 <= tap < length:
                            sums[start + tap] += value * strip[source, column]
        return sums

    *sums, bias = _sum_over_rows(program, num_taps + 1, chunk)
    for first, start, length in zip(firsts, starts, sizes.columns, strict=True):
        for tap in range(length):
            program.write_total(output, first + tap, sums[start + tap])
        program.write_total(output, first + length, bias)


def _row_gradients(program: Program, local, cotangent, weights, output) -> None:
    sizes, tile = program.layout.sizes, program.layout.tile
    rows, _ = sizes.first_taps()
    starts = [sum(sizes.rows[:index]) + index for index in range(len(rows))]

    def chunk(first: Array, sums: list[Array]) -> list[Array]:
        strips = [
            program.own(strip, first)
            for strip in program.columns_transposed(cotangent, weights, first)
        ]
        for strip, start, length in zip(strips, starts, sizes.rows, strict=True):
            for value in strip.values():
                sums[start + length] += value
        reach = sizes.row_reach
        for column in range(-reach, tile.columns_at_once + reach):
            for row in range(tile.rows_at_once):
                value = program.read(local, first + row, column)
                for strip, start, length in zip(
                    strips, starts, sizes.rows, strict=True
                ):
                    for own in range(tile.columns_at_once):
                        tap = column - own + length // 2
                        if 0 <= tap < length:
                            sums[start + tap] += value * strip[row, own]
        return sums

    sums = _sum_over_rows(program, sum(sizes.rows) + len(rows), chunk)
    for first, start, length in zip(rows, starts, sizes.rows, strict=True):
        for tap in range(length + 1):
            program.write_total(output, first + tap, sums[start + tap])


def square_gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    layout: Layout,
) -> Float[Array, "batch programs taps channels"]:
    """Return each program's part of the gradients of the square's taps and bias.

    Args:
      images: What the square is applied to.
      cotangent: Gradient by its result.
      layout: Of a call with no strips.
    """
    return _partial_sums(_square_gradient_kernel, layout, images, cotangent)


def pair_gradients(
    local: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    weights: Float[Array, "taps channels"],
    layout: Layout,
) -> Float[Array, "batch programs taps channels"]:
    """Return each program's part of the gradients of a strip pair's taps and biases.

    Args:
      local: What the pair is applied to.
      cotangent: Gradient by its result.
      weights: The pair's taps and biases.
      layout: Of a call with one pair and no square.
    """
    return _partial_sums(_pair_gradients_kernel, layout, local, cotangent, weights)


def _partial_sums(kernel: Callable, layout: Layout, images: Array, *more: Array):
    batch, _, _, channels = layout.shape
    shape = (batch, layout.grid[2] * layout.grid[1], layout.sizes.total, channels)
    name = kernel.__name__.strip("_").removesuffix("_kernel")
    sums = jnp.promote_types(images.dtype, jnp.float32)
    call = call_kernel(
        kernel, layout, [jax.ShapeDtypeStruct((math.prod(shape),), sums)], name
    )
    return call(*(array.reshape(-1) for array in (images, *more)))[0].reshape(shape)
