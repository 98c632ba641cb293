"""Triton kernels that compute loss, gradient and labels of enlarged logits.

A program has a few cells, each between four neighbouring logits. It holds these logits
in registers and walks over the pixels of the cells, so that logits, labels and results
go through memory once. Arrays are [cells, classes].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int, UInt8

from segnext_jax.ops.kernels.row_program import sum_type

_NUM_WARPS = 4
# Values of an array [cells, classes], in 128 lanes. Registers hold some 16 such arrays
# at a time.
_VALUES = 1024
# Labels are bytes, and more classes than these would not fit the registers.
MAX_CLASSES = 256


class Rule(NamedTuple):
    """Constants of the compiled program.

    Attributes:
      factor: Even; pixels along a cell's side.
      ignore_label: Label of pixels that take no part.
      label_smoothing: In [0, 1).
    """

    factor: int
    ignore_label: int = 255
    label_smoothing: float = 0.0


class _Cells:
    """Coordinates of a program's cells, and their way to memory."""

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        factor: int,
        sums: jnp.dtype,
        interpret: bool,
    ):
        self.shape, self.factor = shape, factor
        self.sums, self.interpret = sums, interpret
        size = _block(shape[3])
        self.column = lax.broadcasted_iota(jnp.int32, (size[0],), 0)
        self.column += pl.program_id(0) * size[0]
        self.row, self.image = pl.program_id(1), pl.program_id(2)
        self.classes = lax.broadcasted_iota(jnp.int32, size, 1)
        self.is_class = self.classes < shape[3]
        self.is_cell = self.column <= shape[2]

    def corner(self, logits, below: int, right: int) -> Array:
        """Return a corner's scores; -inf for classes that do not exist."""
        _, height, width, num_classes = self.shape
        row = jnp.clip(self.row - 1 + below, 0, height - 1)
        column = jnp.clip(self.column - 1 + right, 0, width - 1)
        start = ((self.image * height + row) * width + column) * num_classes
        values = plgpu.load(
            logits.at[start[:, None] + self.classes],
            mask=self.is_class,
            other=-jnp.inf,
        )
        return values.astype(self.sums)

    def pixel(self, row: Array, column: Array) -> tuple[Array, Array]:
        """Return offsets of a pixel of each cell, and which are in the image."""
        _, height, width, _ = self.shape
        height, width = height * self.factor, width * self.factor
        row = self.row * self.factor - self.factor // 2 + row
        column = self.column * self.factor - self.factor // 2 + column
        inside = (column >= 0) & (column < width) & ((row >= 0) & (row < height))
        return (self.image * height + row) * width + column, inside

    def store(self, ref, offsets: Array, values: Array, mask: Array) -> None:
        if self.interpret:
            # The interpreter writes old values where the mask is False, in any order
            # with what other lanes write there. It drops what is out of bounds.
            offsets = jnp.where(mask, offsets, ref.shape[0])
        plgpu.store(ref.at[offsets], values.astype(ref.dtype), mask=mask)

    @property
    def number(self) -> Array:
        """Number of each cell among those of the batch."""
        _, height, width, _ = self.shape
        return (self.image * (height + 1) + self.row) * (width + 1) + self.column

    def share(self, place: Array) -> Array:
        """Return the weight of the farther corner along a cell's side."""
        return (place.astype(self.sums) + 0.5) * (1 / self.factor)


def _block(num_classes: int) -> tuple[int, int]:
    classes = 1 << (num_classes - 1).bit_length()
    return _VALUES // max(classes, 8), classes


def _loss_kernel(
    logits,
    labels,
    weights,
    losses,
    hits,
    gradient,
    *,
    rule: Rule,
    shape: tuple[int, int, int, int],
    interpret: bool,
):
    cells = _Cells(shape, rule.factor, losses.dtype, interpret)
    num_classes = shape[3]
    top_left, top_right, bottom_left, bottom_right = (
        cells.corner(logits, below, right) for below in (0, 1) for right in (0, 1)
    )
    weight = plgpu.load(weights.at[cells.classes], mask=cells.is_class, other=0.0)
    smoothing = rule.label_smoothing
    zero = jnp.zeros(cells.classes.shape, cells.sums)
    if smoothing:
        others = weight * (smoothing / num_classes)
        sum_of_others = jnp.sum(others, axis=1)

    def pixel(row, column, scores):
        """Return loss, hit and slope: see `upsampled._pixel`."""
        offsets, inside = cells.pixel(row, column)
        label = plgpu.load(
            labels.at[jnp.where(inside, offsets, 0)],
            mask=inside,
            other=rule.ignore_label,
        ).astype(jnp.int32)
        is_valid = inside & (label != rule.ignore_label)
        is_label = label[:, None] == cells.classes
        is_weight = jnp.minimum(label, num_classes - 1)[:, None] == cells.classes
        of_label = jnp.sum(jnp.where(is_weight, weight, zero), axis=1)
        score = jnp.sum(jnp.where(is_label, scores, zero), axis=1)
        largest = jnp.max(scores, axis=1)
        is_best = scores == largest[:, None]
        best = jnp.min(jnp.where(is_best, cells.classes, MAX_CLASSES), axis=1)
        powers = jnp.exp(scores - largest[:, None])
        total = jnp.sum(powers, axis=1)
        normaliser = largest + jnp.log(total)
        target_sum = of_label
        if smoothing:
            of_label = of_label * (1 - smoothing)
            target_sum = of_label + sum_of_others
        loss = target_sum * normaliser - of_label * score
        target = jnp.where(is_label, of_label[:, None], zero)
        if smoothing:
            loss -= jnp.sum(jnp.where(cells.is_class, others * scores, zero), axis=1)
            target += others
        slope = powers * (target_sum / total)[:, None] - target
        return (
            jnp.where(is_valid, loss, jnp.zeros_like(loss)),
            (is_valid & (best == label)).astype(jnp.int32),
            jnp.where(is_valid[:, None], slope, zero),
        )

    def add_row(row, sums):
        down = cells.share(row)
        left = (1 - down) * top_left + down * bottom_left
        right = (1 - down) * top_right + down * bottom_right

        def add_pixel(column, sums):
            across = cells.share(column)
            loss, hit, slope = pixel(row, column, (1 - across) * left + across * right)
            losses, hits, *sides = sums
            sides = [sides[0] + (1 - across) * slope, sides[1] + across * slope]
            return (losses + loss, hits + hit, *sides)

        losses, hits, *corners = sums
        losses, hits, *sides = lax.fori_loop(
            jnp.int32(0), jnp.int32(rule.factor), add_pixel, (losses, hits, zero, zero)
        )
        corners = [
            corner + share * side
            for corner, (share, side) in zip(
                corners,
                [(share, side) for share in (1 - down, down) for side in sides],
                strict=True,
            )
        ]
        return (losses, hits, *corners)

    line = jnp.zeros(cells.column.shape, cells.sums)
    sums = (line, line.astype(jnp.int32), *[zero] * 4)
    loss, hit, *corners = lax.fori_loop(
        jnp.int32(0), jnp.int32(rule.factor), add_row, sums
    )
    cells.store(losses, cells.number, loss, cells.is_cell)
    cells.store(hits, cells.number, hit, cells.is_cell)
    mask = cells.is_class & cells.is_cell[:, None]
    for place, corner in enumerate(corners):
        start = (cells.number * 4 + place) * num_classes
        cells.store(gradient, start[:, None] + cells.classes, corner, mask)


def _labels_kernel(logits, labels, *, factor: int, shape, interpret: bool):
    sums = sum_type(logits.dtype)
    cells = _Cells(shape, factor, sums, interpret)
    top_left, top_right, bottom_left, bottom_right = (
        cells.corner(logits, below, right) for below in (0, 1) for right in (0, 1)
    )

    def row_fn(row, carry):
        down = cells.share(row)
        left = (1 - down) * top_left + down * bottom_left
        right = (1 - down) * top_right + down * bottom_right

        def pixel_fn(column, carry):
            across = cells.share(column)
            scores = (1 - across) * left + across * right
            is_best = scores == jnp.max(scores, axis=1)[:, None]
            best = jnp.min(jnp.where(is_best, cells.classes, MAX_CLASSES), axis=1)
            num_nan = jnp.sum((scores != scores).astype(jnp.int32), axis=1)
            best = jnp.where(num_nan > 0, shape[3], best)
            offsets, inside = cells.pixel(row, column)
            cells.store(labels, offsets, best, inside)
            return carry

        return lax.fori_loop(jnp.int32(0), jnp.int32(factor), pixel_fn, carry)

    lax.fori_loop(jnp.int32(0), jnp.int32(factor), row_fn, jnp.int32(0))


def _call(kernel, name: str, shape: tuple, outputs: list, interpret: bool, **options):
    batch, height, width, num_classes = shape
    return pl.pallas_call(
        functools.partial(kernel, shape=shape, interpret=interpret, **options),
        out_shape=[jax.ShapeDtypeStruct((o.size,), o.dtype) for o in outputs],
        grid=(pl.cdiv(width + 1, _block(num_classes)[0]), height + 1, batch),
        compiler_params=plgpu.CompilerParams(num_warps=_NUM_WARPS, num_stages=1),
        interpret=interpret,
        name=name,
    )


def loss_and_gradient(
    logits: Float[Array, "batch small_height small_width classes"],
    labels: Int[Array, "batch height width"] | UInt8[Array, "batch height width"],
    weights: Float[Array, " classes"],
    *,
    rule: Rule,
    interpret: bool = False,
) -> tuple[
    Float[Array, " batch"],
    Int[Array, " batch"],
    Float[Array, "batch small_height small_width classes"],
]:
    """Return each image's loss, hits, and the gradient of its loss.

    All in float32 at least.

    Args:
      logits: Scores before softmax; at most `MAX_CLASSES`.
      labels: Train ids in [0, classes), or ``rule.ignore_label``.
      weights: A factor for each class, in the type of the sums.
      rule: See there.
      interpret: Run on any platform, slowly: for tests.
    """
    batch, height, width, num_classes = logits.shape
    cells = (batch, height + 1, width + 1)
    outputs = [
        jax.ShapeDtypeStruct(cells, sum_type(logits.dtype)),
        jax.ShapeDtypeStruct(cells, jnp.int32),
        jax.ShapeDtypeStruct((*cells, 4, num_classes), sum_type(logits.dtype)),
    ]
    call = _call(
        _loss_kernel, "upsampled_loss", logits.shape, outputs, interpret, rule=rule
    )
    results = call(logits.reshape(-1), labels.reshape(-1), weights)
    losses, hits, corners = (
        result.reshape(output.shape)
        for result, output in zip(results, outputs, strict=True)
    )
    return (
        jnp.sum(losses, axis=(1, 2)),
        jnp.sum(hits, axis=(1, 2)),
        _gather(corners),
    )


def _gather(corners: Array) -> Array:
    """Return the sum of what the cells around each logit add to its gradient.

    Cells beyond the first and last row and column repeat logits, and add to the logits
    that they repeat.
    """
    for axis in (1, 2):
        size = corners.shape[axis] - 1
        part = functools.partial(lax.slice_in_dim, axis=axis)
        # Along this axis the corners before a cell come first.
        before, after = jnp.split(corners, 2, axis=3)
        place = lax.broadcasted_iota(jnp.int32, part(before, 0, size).shape, axis)
        first = jnp.where(place == 0, part(before, 0, size), 0)
        last = jnp.where(place == size - 1, part(after, 1, size + 1), 0)
        corners = part(after, 0, size) + part(before, 1, size + 1) + first + last
    return corners[:, :, :, 0]


def best_labels(
    logits: Float[Array, "batch small_height small_width classes"],
    *,
    factor: int,
    interpret: bool = False,
) -> UInt8[Array, "batch height width"]:
    """Return the first best class of each pixel, or ``classes`` where a score is nan.

    Args:
      logits: Scores; at most `MAX_CLASSES`.
      factor: Even.
      interpret: See `loss_and_gradient`.
    """
    batch, height, width, _ = logits.shape
    output = jax.ShapeDtypeStruct((batch, height * factor, width * factor), jnp.uint8)
    call = _call(
        *(_labels_kernel, "upsampled_labels", logits.shape, [output], interpret),
        factor=factor,
    )
    return call(logits.reshape(-1))[0].reshape(output.shape)
