"""What the Triton kernels of depthwise convolutions share: walks down the rows.

A program has some columns and channels of an image and walks down its rows. Arrays are
[columns, channels], a few neighbouring channels in each lane, so that one instruction
loads all of them. Pixels beside and above are loaded again, from the first-level cache,
or stay in registers. Gradients of weights are sums in registers over all rows of a
program, written without atomic operations: the same in every run.
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

NUM_WARPS = 4
_MAX_CHANNELS = 64


class Layout(NamedTuple):
    """Sizes that are known when a call is traced.

    Attributes:
      shape: [batch, height, width, channels] of the images.
      columns: Number of columns that one program computes, a power of two.
      channels: Number of channels that one program computes, a power of two.
      rows: Number of rows that one program computes.
      interpret: Whether the program is run as ordinary operations, for tests.
    """

    shape: tuple[int, ...]
    columns: int
    channels: int
    rows: int
    interpret: bool

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Programs by channels, columns, rows, images: neighbours share cache lines."""
        batch, height, width, channels = self.shape
        return (
            pl.cdiv(channels, self.channels),
            pl.cdiv(width, self.columns),
            pl.cdiv(height, self.rows),
            batch,
        )

    @property
    def programs_of_image(self) -> int:
        """Programs of one image that have the same channels."""
        return self.grid[1] * self.grid[2]

    def program(self, sums: jnp.dtype) -> "Program":
        """Return what a kernel works with."""
        return Program(self, sums)

    def call(
        self,
        kernel: Callable,
        name: str,
        outputs: list[jax.ShapeDtypeStruct],
        *arrays: Array,
        **options,
    ) -> list[Array]:
        """Return a kernel's outputs.

        Args:
          kernel: ``kernel(*refs, layout=layout, **options)``; the refs are flat.
          name: The name of the kernel.
          outputs: Their shapes.
          *arrays: Arrays of any shapes.
          **options: Static.
        """
        results = pl.pallas_call(
            functools.partial(kernel, layout=self, **options),
            out_shape=[jax.ShapeDtypeStruct((o.size,), o.dtype) for o in outputs],
            grid=self.grid,
            compiler_params=plgpu.CompilerParams(num_warps=NUM_WARPS, num_stages=1),
            interpret=self.interpret,
            name=name,
        )(*(array.reshape(-1) for array in arrays))
        return [r.reshape(o.shape) for r, o in zip(results, outputs, strict=True)]


def make_layout(
    shape: tuple[int, ...],
    values_per_lane: int,
    *,
    min_programs: int,
    min_rows: int,
    interpret: bool,
    most_channels: int = _MAX_CHANNELS,
) -> Layout:
    """Return how images are divided.

    Args:
      shape: Batch, height, width, channels.
      values_per_lane: Neighbouring channels of one lane; registers limit them.
      min_programs: The rows of images are split until there are this many programs.
      min_rows: Fewest rows of a program; splitting stops there.
      interpret: See `Layout`.
      most_channels: Of a program, a power of two.
    """
    _, height, width, channels = shape
    # No lane idles if the number of channels is a multiple.
    own = math.gcd(channels, most_channels)
    if own < 8:
        own = min(most_channels, _power_of_two(channels))
    columns = 32 * NUM_WARPS * values_per_lane // own
    columns = min(columns, _power_of_two(width))
    layout = Layout(shape, columns, own, height, interpret)
    while math.prod(layout.grid) < min_programs and layout.rows >= 2 * min_rows:
        layout = layout._replace(rows=-(-layout.rows // 2))
    return layout


def _power_of_two(number: int) -> int:
    """Round up."""
    return 1 << (number - 1).bit_length()


class Walk(abc.ABC):
    """The walk of a program down the rows from `top` to `bottom`."""

    shape: tuple[int, int]
    sums: jnp.dtype
    top: Array
    bottom: Array

    @property
    def zero(self) -> Array:
        """A row of zeros in the type of sums."""
        return jnp.zeros(self.shape, self.sums)

    @abc.abstractmethod
    def read(self, ref, row: Array, shift: int = 0, bias: Array | None = None) -> Array:
        """Return the row's pixels, ``shift`` to the right, and what is added to them.

        Outside of the image: 0.
        """

    def walk(self, row_fn: Callable, carry):
        """Return the last carry of ``carry = row_fn(row, carry)`` over all rows."""
        return lax.fori_loop(self.top, self.bottom, row_fn, carry)

    def walk_windows(
        self,
        ref,
        size: tuple[int, ...],
        row_fn: Callable,
        carry,
        bias: Array | None = None,
    ):
        """Walk with ``row_fn(row, window, carry)``; see `read` for the bias.

        The window is a list of arrays: the pixels around each pixel, row by row. Each
        row is loaded once for each column of the window.
        """
        height, width = size

        def load(row: Array) -> list[Array]:
            return [
                self.read(ref, row, shift, bias)
                for shift in range(-(width // 2), width // 2 + 1)
            ]

        def step(row: Array, carry):
            lines, carry = carry
            lines = [*lines, load(row + height // 2)]
            window = [value for line in lines for value in line]
            return lines[1:], row_fn(row, window, carry)

        above = [load(self.top + row) for row in range(-(height // 2), height // 2)]
        return self.walk(step, (above, carry))[1]


class Program(Walk):
    """Coordinates of a program, and its way to memory."""

    def __init__(self, layout: Layout, sums: jnp.dtype):
        """Begin; `sums` is the type of sums."""
        self.layout, self.sums = layout, sums
        self.shape = (layout.columns, layout.channels)
        self._own_column = lax.broadcasted_iota(jnp.int32, self.shape, 0)
        self._left = pl.program_id(1) * layout.columns
        self._column = self._own_column + self._left
        self._channel = lax.broadcasted_iota(jnp.int32, self.shape, 1)
        self._channel += pl.program_id(0) * layout.channels
        self.top = pl.program_id(2) * layout.rows
        self.bottom = jnp.minimum(self.top + layout.rows, layout.shape[1])
        self._image = pl.program_id(3)

    @property
    def zero_sum(self) -> Array:
        """What `add` begins with."""
        return self.zero

    def add(self, total: Array, values: Array) -> Array:
        """Return a sum over columns, of which parts remain to be added."""
        return total + values

    @property
    def _has_all_channels(self) -> bool:
        """Whether no program reaches beyond the last channel."""
        return self.layout.shape[3] % self.layout.channels == 0

    def _if_channel(self, mask: Array) -> Array:
        if self._has_all_channels:
            return mask
        return mask & (self._channel < self.layout.shape[3])

    def _place(self, row: Array, shift: int) -> tuple[Array, Array]:
        _, height, width, channels = self.layout.shape
        column = self._column + shift
        inside = (column >= 0) & (column < width) & ((row >= 0) & (row < height))
        start = (self._image * height + row) * (width * channels)
        return start + (column * channels + self._channel), self._if_channel(inside)

    def read(self, ref, row: Array, shift: int = 0, bias: Array | None = None) -> Array:
        """Return the row's pixels, ``shift`` to the right, and what is added to them.

        Outside of the image: 0.
        """
        offsets, inside = self._place(row, shift)
        values = plgpu.load(ref.at[offsets], mask=inside, other=0.0).astype(self.sums)
        return values if bias is None else jnp.where(inside, values + bias, self.zero)

    def inside(self, row: Array, values: Array) -> Array:
        """Return values, and 0 outside of the image."""
        return jnp.where(self._place(row, 0)[1], values, self.zero)

    def write(self, ref, row: Array, values: Array) -> None:
        """Write the row's pixels, if the row belongs to the program."""
        offsets, inside = self._place(row, 0)
        self._store(
            ref, offsets, inside & (row >= self.top) & (row < self.bottom), values
        )

    def _store(self, ref, offsets: Array, mask: Array, values: Array) -> None:
        if self.layout.interpret:
            # The interpreter writes old values where the mask is False, in any order
            # with what other lanes write there. It drops what is out of bounds.
            offsets = jnp.where(mask, offsets, ref.shape[0])
        plgpu.store(ref.at[offsets], values.astype(ref.dtype), mask=mask)

    def weight(self, ref, index: int) -> Array:
        """Return a row of packed weights, as large as the pixels."""
        offsets = self._channel + index * self.layout.shape[3]
        if self._has_all_channels:
            return ref[offsets]
        mask = self._channel < self.layout.shape[3]
        return plgpu.load(ref.at[offsets], mask=mask, other=0.0)

    def read_all(self, ref, row: Array, count: int) -> Array:
        """Return all ``count`` channels of the row's pixels of other images."""
        _, height, width, _ = self.layout.shape
        shape = self.layout.columns, count
        column = self._left + lax.broadcasted_iota(jnp.int32, shape, 0)
        start = (self._image * height + row) * width + column
        offsets = start * count + lax.broadcasted_iota(jnp.int32, shape, 1)
        inside = (column < width) & (row < height)
        return plgpu.load(ref.at[offsets], mask=inside, other=0.0)

    def rows_of_channels(self, ref, count: int) -> Array:
        """Return [count, channels] of a ref [channels, count]."""
        shape = count, self.layout.channels
        own = lax.broadcasted_iota(jnp.int32, shape, 1)
        own += pl.program_id(0) * self.layout.channels
        return ref[own * count + lax.broadcasted_iota(jnp.int32, shape, 0)]

    def of_image(self, ref, count: int, index: int) -> Array:
        """Return one of ``count`` numbers of the image."""
        return ref[self._image * count + index]

    @property
    def num_columns(self) -> Array:
        """Columns of the program that are in the image."""
        return jnp.minimum(self.layout.columns, self.layout.shape[2] - self._left)

    def sum(self, values: Array) -> Array:
        """Return the sum over columns, repeated in each column.

        The result has the shape of the pixels, since the sum alone would have another
        layout in registers.
        """
        return jnp.broadcast_to(jnp.sum(values, axis=0)[None], self.shape)

    def write_total(
        self, ref, index: int, count: int, values: Array, is_sum: bool = False
    ) -> None:
        """Write a sum over columns to the program's place for one of ``count`` sums."""
        _, columns, rows, _ = self.layout.grid
        number = (self._image * rows + pl.program_id(2)) * columns + pl.program_id(1)
        start = (number * count + index) * self.layout.shape[3]
        total = values if is_sum else self.sum(values)
        mask = self._if_channel(self._own_column == 0)
        self._store(ref, start + self._channel, mask, total)


def pack(dtype: jnp.dtype, *weights: Array) -> Array:
    """Return taps and biases as rows of channels, rounded to the images' type.

    The result has the type of the sums. Otherwise a lane would convert each weight at
    each of its uses.
    """
    rows = [weight.reshape(-1, weight.shape[-1]) for weight in weights]
    return jnp.concatenate([row.astype(dtype).astype(sum_type(dtype)) for row in rows])


def sum_type(dtype: jnp.dtype) -> jnp.dtype:
    """Return the type of sums."""
    return jnp.promote_types(dtype, jnp.float32)
