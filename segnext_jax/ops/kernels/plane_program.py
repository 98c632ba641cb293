"""What runs the kernels of depthwise convolutions on TPUs: an image's plane at a time.

A program has all rows and columns of some channels of an image in on-chip memory, and
walks down the rows as a Triton program does (row_program.py), with the same kernels. A
row is [columns, channels], columns along the 8 sublanes and channels along the 128
lanes; or [channels, columns] where that leaves fewer lanes empty, as for the 32
channels of a first stage. Pixels beside are the row, rotated.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from segnext_jax.ops.kernels.row_program import Walk

_LANES, _SUBLANES = 128, 8
# A TPU v5e has 128 MiB of on-chip memory, others have less.
_MOST_BYTES = 24 * 2**20
# Three planes of a program, and of its successor.
_NUM_PLANES = 6


class Planes(NamedTuple):
    """Sizes that are known when a call is traced.

    Attributes:
      shape: [batch, height, width, channels] of the images.
      itemsize: Bytes of one of their values.
      interpret: Whether the program is run as ordinary operations, for tests.
    """

    shape: tuple[int, ...]
    itemsize: int
    interpret: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether columns are along the lanes.

        A program has fewer channels then, and room for larger images.
        """
        _, height, width, channels = self.shape
        rows = self._packed_sublanes
        wide = _up(width, _LANES) * _up(channels, rows)
        narrow = _up(width, rows) * _up(channels, _LANES)
        narrow_bytes = height * _up(width, rows) * _LANES * self.itemsize
        return wide < narrow or _NUM_PLANES * narrow_bytes > _MOST_BYTES

    @property
    def _packed_sublanes(self) -> int:
        return _SUBLANES * 4 // min(self.itemsize, 4)

    @property
    def width(self) -> int:
        """Columns of a program's rows, those beside the image included."""
        return _up(self.shape[2], _LANES if self.is_wide else self._packed_sublanes)

    @property
    def channels(self) -> int:
        """Channels of a program."""
        most = self._packed_sublanes if self.is_wide else _LANES
        return min(self.shape[3], most)

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of a row."""
        if self.is_wide:
            return self.channels, self.width
        return self.width, self.channels

    @property
    def plane_bytes(self) -> int:
        """Bytes of a program's part of an image."""
        tiles = _up(self.channels, self._packed_sublanes if self.is_wide else _LANES)
        return self.shape[1] * self.width * tiles * self.itemsize

    @property
    def programs_of_image(self) -> int:
        """Programs of one image that have the same channels."""
        return 1

    @property
    def fits(self) -> bool:
        """Whether there is room for the planes of a program."""
        return _NUM_PLANES * self.plane_bytes <= _MOST_BYTES

    def program(self, sums: jnp.dtype) -> "PlaneProgram":
        """Return what a kernel works with."""
        return PlaneProgram(self, sums)

    def call(
        self,
        kernel: Callable,
        name: str,
        outputs: list[jax.ShapeDtypeStruct],
        *arrays: Array,
        **options,
    ) -> list[Array]:
        """Return a kernel's outputs; see `segnext_jax.ops.kernels.row_program.Layout`.

        Arrays of four dimensions are images, those of two are weights.
        """
        batch, _, width, channels = self.shape
        padding = ((0, 0), (0, 0), (0, self.width - width), (0, 0))
        padded = [
            self._turn(jnp.pad(array, padding) if array.ndim == 4 else array)
            for array in arrays
        ]
        shapes = [
            jax.eval_shape(self._turn, jax.ShapeDtypeStruct(self._pad(o), o.dtype))
            for o in outputs
        ]
        read_and_written = [*padded, *shapes]
        results = pl.pallas_call(
            functools.partial(kernel, layout=self, **options),
            out_shape=shapes,
            grid=(batch, pl.cdiv(channels, self.channels)),
            in_specs=[self._spec(array) for array in padded],
            out_specs=[self._spec(shape) for shape in shapes],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel"),
                vmem_limit_bytes=_MOST_BYTES + 2**23,
            ),
            cost_estimate=pl.CostEstimate(
                flops=0,
                transcendentals=0,
                bytes_accessed=sum(a.size * a.dtype.itemsize for a in read_and_written),
            ),
            interpret=self.interpret,
            name=name,
        )(*padded)
        return [
            self._turn(result)[:, :, : output.shape[2]]
            for result, output in zip(results, outputs, strict=True)
        ]

    def _pad(self, output: jax.ShapeDtypeStruct) -> tuple[int, ...]:
        """Return the shape of an output with what its rows have beside the image."""
        batch, height, _, channels = self.shape
        is_image = output.shape == self.shape
        return (batch, height, self.width, channels) if is_image else output.shape

    def _turn(self, array: Array) -> Array:
        """Exchange channels and what they are the last dimension of, if wide."""
        return jnp.swapaxes(array, -1, -2) if self.is_wide else array

    def _spec(self, array) -> pl.BlockSpec:
        *leading, rows, columns = array.shape
        own = (self.channels, columns) if self.is_wide else (rows, self.channels)

        def place(image, channel):
            first = [image, 0][: len(leading)]
            last = [channel, 0] if self.is_wide else [0, channel]
            return *first, *last

        return pl.BlockSpec((*[None, *leading[1:]][: len(leading)], *own), place)


class PlaneProgram(Walk):
    """A program's way to its part of an image."""

    def __init__(self, layout: Planes, sums: jnp.dtype):
        """Begin; `sums` is the type of sums."""
        self.layout, self.sums = layout, sums
        self.shape = layout.row_shape
        self._axis = 1 if layout.is_wide else 0
        self.top, self.bottom = jnp.int32(0), jnp.int32(layout.shape[1])

    @property
    def zero(self) -> Array:
        """A row of zeros in the type of sums."""
        return self._zeros(self.shape)

    @property
    def zero_sum(self) -> Array:
        """What `add` begins with: a part of a row that the registers hold."""
        shape = list(self.shape)
        shape[self._axis] = _LANES if self._axis else _SUBLANES
        return self._zeros(tuple(shape))

    def _zeros(self, shape: tuple[int, ...]) -> Array:
        # A loop cannot carry what began as a constant: Mosaic keeps one register for
        # all of a constant's, and does not divide it into several.
        index = sum(lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        return jnp.where(index < 0, jnp.ones((), self.sums), jnp.zeros((), self.sums))

    def add(self, total: Array, values: Array) -> Array:
        """Return a sum over columns, of which parts remain to be added."""
        size = total.shape[self._axis]
        for start in range(0, values.shape[self._axis], size):
            total += lax.slice_in_dim(values, start, start + size, axis=self._axis)
        return total

    def _inside(self, row: Array, shift: int) -> Array:
        _, height, width, _ = self.layout.shape
        column = lax.broadcasted_iota(jnp.int32, self.shape, self._axis) + shift
        return (column >= 0) & (column < width) & ((row >= 0) & (row < height))

    def read(self, ref, row: Array, shift: int = 0, bias: Array | None = None) -> Array:
        """Return the row's pixels, ``shift`` to the right, and what is added to them.

        Outside of the image: 0.
        """
        line = ref[jnp.clip(row, 0, self.layout.shape[1] - 1)].astype(self.sums)
        if shift:
            line = pltpu.roll(line, -shift % self.layout.width, self._axis)
        if bias is not None:
            line += bias
        return jnp.where(self._inside(row, shift), line, self.zero)

    def inside(self, row: Array, values: Array) -> Array:
        """Return values, and 0 outside of the image."""
        return jnp.where(self._inside(row, 0), values, self.zero)

    def write(self, ref, row: Array, values: Array) -> None:
        """Write the row's pixels, if the row belongs to the program."""

        @pl.when((row >= 0) & (row < self.layout.shape[1]))
        def _():
            ref[row] = values.astype(ref.dtype)

    def weight(self, ref, index: int) -> Array:
        """Return a row of packed weights, as large as the pixels."""
        own = lax.slice_in_dim(ref[...], index, index + 1, axis=self._axis)
        return jnp.broadcast_to(own, self.shape)

    def write_total(self, ref, index: int, count: int, values: Array) -> None:
        """Write a sum over columns to the program's place for one of ``count`` sums."""
        del count
        total = jnp.sum(values, axis=self._axis, keepdims=True)
        if self._axis:
            ref[0, :, index : index + 1] = total
        else:
            ref[0, index : index + 1, :] = total


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
