"""What the fused kernels' programs share: sizes, tiles, and their way to memory.

Written for Triton. Arrays are one value per lane, [groups of columns, channels], since
registers cannot be sliced; a lane's pixels are a dict of them. Loops that are not
written out are loops for the compiler's sake: Triton's pass that orders memory accesses
visits all operations for each access, and takes minutes where kernels are unrolled.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

Read = Callable[[Array | int, Array | int], Array]
# By row and column of a lane.
Pixels = dict[tuple[int, int], Array]


class Sizes(NamedTuple):
    """Kernel sizes, which also say where in the packed weights a kernel begins.

    Packed: the square's taps and bias, unless it has no size; for each pair the row's
    taps and bias, and the column's taps and bias.
    """

    square: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def square_taps(self) -> int:
        """Number of taps of the square, which is the index of its bias."""
        return self.square[0] * self.square[1]

    def first_taps(self) -> tuple[list[int], list[int]]:
        """Return the index of the first tap of each row, and of each column."""
        rows, columns, index = [], [], self._square_total
        for row, column in zip(self.rows, self.columns, strict=True):
            rows.append(index)
            columns.append(index + row + 1)
            index += row + column + 2
        return rows, columns

    @property
    def total(self) -> int:
        """Taps and biases of all."""
        return sum(self.rows + self.columns) + 2 * len(self.rows) + self._square_total

    @property
    def _square_total(self) -> int:
        return self.square_taps + 1 if self.square_taps else 0

    @property
    def row_reach(self) -> int:
        """Columns to each side that the longest row strip sees."""
        return max(self.rows, default=1) // 2

    @property
    def column_reach(self) -> int:
        """Rows above and below that the longest column strip sees."""
        return max(self.columns, default=1) // 2


class Tile(NamedTuple):
    """What one program computes.

    Attributes:
      rows: Of the output. Neighbours above and below both compute `column_reach` rows.
      columns: Of the output. Where the image is wider, neighbours both compute the
        square's columns that their row strips share.
      channels: A power of two.
      rows_at_once: Of one lane.
      columns_at_once: Of one lane. ``columns / columns_at_once`` is a power of two.
      num_warps: Of 32 lanes.
    """

    rows: int
    columns: int
    channels: int
    rows_at_once: int
    columns_at_once: int
    num_warps: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """Everything about a call that is known when it is traced."""

    shape: tuple[int, ...]
    sizes: Sizes
    tile: Tile
    interpret: bool

    @property
    def groups(self) -> int:
        """Groups of a lane's columns in a tile."""
        return self.tile.columns // self.tile.columns_at_once

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Programs by channels, columns, rows, images: neighbours share cache lines."""
        batch, height, width, channels = self.shape
        return (
            pl.cdiv(channels, self.tile.channels),
            pl.cdiv(width, self.tile.columns),
            pl.cdiv(height, self.tile.rows),
            batch,
        )

    @property
    def border(self) -> int:
        """Groups of columns to each side that row strips see."""
        return pl.cdiv(self.sizes.row_reach, self.tile.columns_at_once)

    @property
    def line(self) -> int:
        """Values of one row in a program's own memory."""
        groups = self.groups + 2 * self.border
        return groups * self.tile.columns_at_once * self.tile.channels


class Program:
    """Coordinates of a program, and its way to memory."""

    def __init__(self, layout: Layout, sums: jnp.dtype):
        """Begin; `sums` is the type of sums."""
        tile = layout.tile
        self.layout, self.sums = layout, sums
        shape = (layout.groups, tile.channels)
        self.group = lax.broadcasted_iota(jnp.int32, shape, 0)
        self.own_channel = lax.broadcasted_iota(jnp.int32, shape, 1)
        self.channel = self.own_channel + pl.program_id(0) * tile.channels
        self.left = pl.program_id(1) * tile.columns
        self.top = pl.program_id(2) * tile.rows
        self.bottom = jnp.minimum(self.top + tile.rows, layout.shape[1])
        self.image = pl.program_id(3)

    def _place(self, row: Array, column: Array) -> tuple[Array, Array]:
        """Return offsets into flat images, and which of them are in the image."""
        _, height, width, channels = self.layout.shape
        start = (self.image * height + row) * (width * channels)
        inside = (column >= 0) & (column < width) & ((row >= 0) & (row < height))
        if channels % self.layout.tile.channels:
            inside &= self.channel < channels
        return start + (column * channels + self.channel), inside

    def read(self, ref, row: Array, column: Array | int, group=None) -> Array:
        """Return a row's pixels, `column` to the right of each group; outside: 0."""
        group = self.group if group is None else group
        columns = self.left + column + group * self.layout.tile.columns_at_once
        offsets, inside = self._place(row, columns)
        return plgpu.load(ref.at[offsets], mask=inside, other=0.0).astype(self.sums)

    def write(self, ref, row: Array, column: int, value: Array) -> None:
        """Write a row's pixels, if it is the program's."""
        columns = self.left + column + self.group * self.layout.tile.columns_at_once
        offsets, inside = self._place(row, columns)
        self.store(
            ref, offsets, value, inside & (row >= self.top) & (row < self.bottom)
        )

    def store(self, ref, offsets: Array, value: Array, mask: Array | None) -> None:
        """Store where the mask says so."""
        if mask is not None and self.layout.interpret:
            # The interpreter writes old values where the mask is False, in any order
            # with what other lanes write there. It drops what is out of bounds.
            offsets = jnp.where(mask, offsets, ref.shape[0])
        plgpu.store(ref.at[offsets], value.astype(ref.dtype), mask=mask)

    def weight(self, ref, index: Array | int) -> Array:
        """Return a tap or bias of the packed weights, the same for all groups.

        Loaded in the images' shape, not broadcast: that would move it across lanes.
        """
        channels = self.layout.shape[3]
        offsets = self.channel + index * channels
        if channels % self.layout.tile.channels == 0:
            return ref[offsets]
        return plgpu.load(ref.at[offsets], mask=self.channel < channels, other=0.0)

    def pixels(self) -> Iterator[tuple[int, int]]:
        """Yield row and column of each of a lane's pixels."""
        for row in range(self.layout.tile.rows_at_once):
            for column in range(self.layout.tile.columns_at_once):
                yield row, column

    def square(self, read: Read, weights) -> Pixels:
        """Return the square's sum of each of a lane's pixels."""
        tile = self.layout.tile
        height, width = self.layout.sizes.square

        def add(tap_row: Array, sums: Pixels) -> Pixels:
            kernel = [
                self.weight(weights, tap_row * width + tap) for tap in range(width)
            ]
            for row in range(tile.rows_at_once):
                line = [
                    read(row + tap_row - height // 2, column - width // 2)
                    for column in range(tile.columns_at_once + width - 1)
                ]
                for column in range(tile.columns_at_once):
                    for tap, weight in enumerate(kernel):
                        sums[row, column] += line[column + tap] * weight
            return sums

        bias = self.weight(weights, self.layout.sizes.square_taps)
        return loop(0, height, add, dict.fromkeys(self.pixels(), bias))

    def rows(self, read: Read, weights) -> list[Pixels]:
        """Return each row strip's sum of each of a lane's pixels.

        A window of `columns_at_once` values slides to the right, and all strips use it
        that reach as far.
        """
        sizes, at_once = self.layout.sizes, self.layout.tile.columns_at_once
        firsts, _ = sizes.first_taps()
        strips = list(zip(firsts, sizes.rows, strict=True))
        starts = {-(length // 2) for length in sizes.rows}
        ends = {length // 2 + 1 for length in sizes.rows}
        bounds = sorted(starts | ends | {min(starts, default=0) - (at_once - 1)})
        zero = jnp.zeros(self.group.shape, self.sums)
        window = [[zero] * (at_once - 1) for _ in range(self.layout.tile.rows_at_once)]
        sums = [
            dict.fromkeys(self.pixels(), self.weight(weights, first + length))
            for first, length in strips
        ]
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            reaching = [
                -(length // 2) <= start < length // 2 + 1 for _, length in strips
            ]

            def add(shift: Array, carry, reaching=tuple(reaching)):
                window, sums = carry
                window = [
                    [*line, read(row, shift + (at_once - 1))]
                    for row, line in enumerate(window)
                ]
                for index, (first, length) in enumerate(strips):
                    if reaching[index]:
                        weight = self.weight(weights, shift + (first + length // 2))
                        for row, column in self.pixels():
                            sums[index][row, column] += window[row][column] * weight
                return [line[1:] for line in window], sums

            window, sums = loop(start, end, add, (window, sums))
        return sums

    def columns_transposed(self, ref, weights, first: Array) -> list[Pixels]:
        """Return each column strip's transpose of each of a lane's pixels, no bias."""
        sizes = self.layout.sizes
        _, firsts = sizes.first_taps()
        zero = jnp.zeros(self.group.shape, self.sums)
        output = []
        for tap_first, length in zip(firsts, sizes.columns, strict=True):

            def add(tap: Array, sums: Pixels, tap_first=tap_first, length=length):
                weight = self.weight(weights, tap_first + tap)
                for row, column in self.pixels():
                    source = first + row + (length // 2 - tap)
                    sums[row, column] += self.read(ref, source, column) * weight
                return sums

            output.append(loop(0, length, add, dict.fromkeys(self.pixels(), zero)))
        return output

    def own(self, values: Pixels, first: Array) -> Pixels:
        """Replace by 0 what is another program's pixel, or none: it is counted once."""
        start = self.left + self.group * self.layout.tile.columns_at_once

        def inside(row: int, column: int) -> Array:
            is_column = start + column < self.layout.shape[2]
            return is_column & (first + row < self.bottom)

        return zero_outside(values, inside)

    def write_total(self, ref, index: int, values: Array) -> None:
        """Write the sum over groups to the program's place for a tap or bias.

        As an array of the images' shape, of which the first group is stored: the sum
        alone has another layout in registers.
        """
        channels = self.layout.shape[3]
        axes = (self.layout.grid[2], self.layout.grid[1])
        number = (self.image * axes[0] + pl.program_id(2)) * axes[1] + pl.program_id(1)
        start = (number * self.layout.sizes.total + index) * channels
        total = jnp.broadcast_to(jnp.sum(values, axis=0)[None], values.shape)
        mask = (self.group == 0) & (self.channel < channels)
        self.store(ref, start + self.channel, total, mask)

    def chunks(self, start: Array, stop: Array) -> Array:
        """Return how often `rows_at_once` rows go between two rows."""
        at_once = self.layout.tile.rows_at_once
        return lax.div(stop - start + (at_once - 1), jnp.int32(at_once))


def zero_outside(values: Pixels, inside: Callable[[int, int], Array]) -> Pixels:
    """Replace pixels by 0 where they are not inside."""
    return {
        pixel: jnp.where(inside(*pixel), value, jnp.zeros_like(value))
        for pixel, value in values.items()
    }


def loop(start: int, stop: int, body: Callable, carry):
    """Count in 32 bits, also where Python's numbers would be of 64."""
    return lax.fori_loop(jnp.int32(start), jnp.int32(stop), body, carry)


def call_kernel(kernel: Callable, layout: Layout, outputs: list, name: str, **static):
    """Return a function of flat arrays to the kernel's flat outputs."""
    return pl.pallas_call(
        functools.partial(kernel, layout=layout, **static),
        out_shape=outputs,
        grid=layout.grid,
        compiler_params=plgpu.CompilerParams(
            num_warps=layout.tile.num_warps,
            # Nothing is to be loaded ahead across a barrier.
            num_stages=1,
        ),
        interpret=layout.interpret,
        name=name,
    )
