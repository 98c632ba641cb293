"""Pallas-Triton kernels of the multi-scale attention, for NVIDIA GPUs.

103 multiply-adds per value (5x5, and 7 + 11 + 21 twice) against 4 bytes of traffic in
bfloat16: an H100 (132 SMs x 128 lanes x 1.7 GHz, 3.35 TB/s) needs 3.6 ps for the
arithmetic and 1.2 ps for the traffic. So arithmetic counts, and what stands beside it:
a load from L1 occupies a scheduler as long as four multiply-adds, and one load per tap
would take four times as long as the arithmetic. Hence:

- A program walks down the rows of its tile. Its sums over the column strips stay in
  registers: each new row is added to the `2 * reach + 1` output rows that it touches.
  Nothing is computed twice from one row to the next, and rows outside of the image
  cost nothing.
- A lane has `rows_at_once x columns_at_once` neighbouring pixels of one channel, and
  uses each value and each weight that it loads for all of them: 6 loads rather than 21
  for a row strip.
- Only the row strips need pixels of other lanes. The 5x5's rows go there through a few
  kilobytes of global memory that belong to the program and stay in L1 and L2; Pallas
  on Triton has no shared memory to index.

Written out for each lane's pixels, since Triton cannot slice an array in registers: an
array here is one value per lane, [groups of columns, channels], and all else a Python
list.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from segnext_jax.ops.pallas_program import (
    Layout,
    Program,
    Read,
    call_kernel,
    loop,
    zero_outside,
)


def _square_kernel(images, weights, output, *, layout: Layout):
    program = Program(layout, weights.dtype)

    def chunk(index, carry):
        first = program.top + index * layout.tile.rows_at_once
        read = lambda row, column: program.read(images, first + row, column)  # noqa: E731
        for (row, column), value in program.square(read, weights).items():
            program.write(output, first + row, column, value)
        return carry

    lax.fori_loop(jnp.int32(0), program.chunks(program.top, program.bottom), chunk, ())


def _attention_kernel(
    images, weights, output, memory=None, *, layout: Layout, has_square: bool
):
    program = Program(layout, weights.dtype)
    sizes, tile = layout.sizes, layout.tile
    height, reach = layout.shape[1], sizes.column_reach
    _, firsts = sizes.first_taps()
    start = jnp.maximum(program.top - reach, 0)
    stop = jnp.minimum(program.bottom + reach, height)
    if has_square:
        exchange = _Exchange(program, images, weights, memory)

    def fresh(num_rows: int) -> list[list[Array]]:
        bias = jnp.zeros((layout.groups, tile.channels), program.sums)
        for first, length in zip(firsts, sizes.columns, strict=True):
            bias += program.weight(weights, first + length)
        return [[bias] * tile.columns_at_once for _ in range(num_rows)]

    def chunk(index, sums):
        first = start + index * tile.rows_at_once
        if has_square:
            read = exchange(first, index)
        else:
            read = lambda row, column: program.read(images, first + row, column)  # noqa: E731
        strips = program.rows(read, weights)
        # sums[i] is output row `first - reach + i`.
        sums = [*map(list, sums), *fresh(tile.rows_at_once)]
        for row, column in program.pixels():
            sums[row + reach][column] += read(row, column)
        for strip, tap_first, length in zip(strips, firsts, sizes.columns, strict=True):
            # A row below the image is padding: 0, not the row strip's bias.
            strip = zero_outside(strip, lambda row, _: first + row < height)
            for tap in range(length):
                weight = program.weight(weights, tap_first + tap)
                for (row, column), value in strip.items():
                    target = row - tap + length // 2 + reach
                    sums[target][column] += value * weight
        return finish(first, sums)

    def finish(first, sums):
        """Write the rows that nothing more is added to."""
        for row, columns in enumerate(sums[: tile.rows_at_once]):
            for column, value in enumerate(columns):
                program.write(output, first + (row - reach), column, value)
        return sums[tile.rows_at_once :]

    num_chunks = program.chunks(start, stop)
    sums = lax.fori_loop(jnp.int32(0), num_chunks, chunk, fresh(2 * reach))
    end = start + num_chunks * tile.rows_at_once
    if reach:
        loop(
            0,
            pl.cdiv(2 * reach, tile.rows_at_once),
            lambda index, sums: finish(
                end + index * tile.rows_at_once, [*sums, *fresh(tile.rows_at_once)]
            ),
            sums,
        )


class _Exchange:
    """Rows of the square's results, which all lanes of a program write and read.

    Twice as much memory as the rows at once, in turn: so one barrier is enough.
    """

    def __init__(self, program: Program, images, weights, memory):
        self.program, self.images, self.weights = program, images, weights
        self.memory, layout = memory, program.layout
        number = pl.program_id(3)
        for axis in (2, 1, 0):
            number = number * layout.grid[axis] + pl.program_id(axis)
        self.start = number * (2 * layout.tile.rows_at_once * layout.line)
        if layout.grid[1] == 1:
            self._clear_borders()

    def _offsets(self, line: Array | int, column: Array | int, group) -> Array:
        layout = self.program.layout
        columns = (group + layout.border) * layout.tile.columns_at_once + column
        place = columns * layout.tile.channels + self.program.own_channel
        return self.start + line * layout.line + place

    @property
    def _num_borders(self) -> int:
        """Arrays of groups that hold those left and right of the tile."""
        return pl.cdiv(2 * self.program.layout.border, self.program.layout.groups)

    def _place(self, number: Array) -> tuple[Array, Array]:
        """Return groups, and which of them exist; after the borders, the tile's own."""
        layout, program = self.program.layout, self.program
        border = number * layout.groups + program.group
        beside = jnp.where(border < layout.border, 0, layout.groups) - layout.border
        is_own = number == self._num_borders
        group = jnp.where(is_own, program.group, border + beside)
        return group, is_own | (border < 2 * layout.border)

    def _clear_borders(self) -> None:
        """No image beside the tile: padding, from the beginning to the end."""
        layout = self.program.layout
        num_lines = 2 * layout.tile.rows_at_once

        def clear(index, carry):
            group, exists = self._place(lax.div(index, jnp.int32(num_lines)))
            line = lax.rem(index, jnp.int32(num_lines))
            for column in range(layout.tile.columns_at_once):
                offsets = self._offsets(line, column, group)
                zero = jnp.zeros(offsets.shape, self.program.sums)
                self.program.store(self.memory, offsets, zero, exists)
            return carry

        loop(0, num_lines * self._num_borders, clear, ())

    def __call__(self, first: Array, index: Array) -> Read:
        """Compute the square's rows from `first`, and return how to read them."""
        program, layout = self.program, self.program.layout
        lines = (index & 1) * layout.tile.rows_at_once
        # The borders too, unless no image is beside the tile.
        first_place = 0 if layout.grid[1] > 1 else self._num_borders

        def fill(number, carry):
            self._fill(first, lines, *self._place(number))
            return carry

        loop(first_place, self._num_borders + 1, fill, ())
        if not layout.interpret:
            plgpu.debug_barrier()

        def read(row: Array | int, column: Array | int) -> Array:
            return self.memory[self._offsets(lines + row, column, program.group)]

        return read

    def _fill(self, first: Array, lines: Array, group: Array, exists) -> None:
        program, (_, height, width, _) = self.program, self.program.layout.shape
        column_start = program.left + group * program.layout.tile.columns_at_once

        def read(row: Array | int, column: Array | int) -> Array:
            return program.read(self.images, first + row, column, group)

        def inside(row: int, column: int) -> Array:
            columns = column_start + column
            return (columns >= 0) & (columns < width) & (first + row < height)

        square = zero_outside(program.square(read, self.weights), inside)
        for (row, column), value in square.items():
            offsets = self._offsets(lines + row, column, group)
            program.store(self.memory, offsets, value, exists)


def attention(
    images: Float[Array, "batch height width channels"],
    weights: Float[Array, "taps channels"],
    layout: Layout,
    *,
    has_square: bool,
) -> Float[Array, "batch height width channels"]:
    """Return ``d + sum_i column_i(row_i(d))``, ``d`` the square's result or the images.

    Args:
      images: Feature maps.
      weights: Packed as `Sizes` says, in the type of the sums.
      layout: Of the call.
      has_square: Whether the square is applied.
    """
    outputs = [jax.ShapeDtypeStruct((images.size,), images.dtype)]
    if has_square:
        programs = math.prod(layout.grid)
        values = programs * 2 * layout.tile.rows_at_once * layout.line
        outputs.append(jax.ShapeDtypeStruct((values,), weights.dtype))
    call = call_kernel(
        _attention_kernel, layout, outputs, "multi_scale", has_square=has_square
    )
    return call(images.reshape(-1), weights.reshape(-1))[0].reshape(images.shape)


def square(
    images: Float[Array, "batch height width channels"],
    weights: Float[Array, "taps channels"],
    layout: Layout,
) -> Float[Array, "batch height width channels"]:
    """Return the square's result."""
    outputs = [jax.ShapeDtypeStruct((images.size,), images.dtype)]
    call = call_kernel(_square_kernel, layout, outputs, "multi_scale_square")
    return call(images.reshape(-1), weights.reshape(-1))[0].reshape(images.shape)
