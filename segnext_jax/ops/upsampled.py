"""Loss and labels of enlarged logits, without an array of the enlarged logits.

A network gives logits at 1/8 of the size of labels. The logits of one image, enlarged
to 512x512 pixels with 150 classes, take 157 MB in float32, and loss, softmax, gradient
and hits would each be another array of that size. Here only one in ``factor ** 2`` of
the enlarged logits exists at a time. A cell is the square between the centres of four
neighbouring logits. Bilinear interpolation by a whole factor f, with half-pixel
centres, gives the f * f pixels of a cell f * f sets of four weights, and every cell has
the same sets. So a loop over the sets sees one pixel of every cell at each turn: a map
as small as the logits.

Arrays of the loop are [classes, cells], so that maxima and sums over classes run along
contiguous cells. Pixels outside of the outermost centres lie in cells of repeated
logits; the outer halves of these cells are cut off or ignored.

The loop's turns (64 for a factor of 8) each go through memory. On NVIDIA GPUs a kernel
with the loop inside computes the same (kernels/upsampled.py).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from segnext_jax.ops.best_class import best_class
from segnext_jax.ops.kernels import upsampled as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.platforms import by_platform, has_kernels_for

Labels = Int[Array, "batch height width"] | UInt8[Array, "batch height width"]


class Sums(NamedTuple):
    """Sums over the labelled pixels of a batch.

    Attributes:
      loss: Cross-entropy.
      hits: Number of pixels whose label is the first of the best classes.
    """

    loss: Float[Array, ""]
    hits: Int[Array, ""]


def whole_factor(size: tuple[int, ...], label_size: tuple[int, ...]) -> int | None:
    """Return the even factor that enlarges ``size`` to ``label_size``; None if none."""
    factor = label_size[0] // size[0]
    is_whole = tuple(factor * side for side in size) == tuple(label_size)
    return factor if is_whole and factor % 2 == 0 and factor else None


def upsampled_cross_entropy(
    logits: Float[Array, "batch small_height small_width classes"],
    labels: Labels,
    *,
    ignore_label: int = 255,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Sums:
    """Return sums of ``cross_entropy(resize_bilinear(logits, size), labels)``.

    The same loop sums up the gradient of the loss, while it has the softmax. The
    backward pass keeps this gradient alone.

    Args:
      logits: Scores before softmax; computed in float32 at least.
      labels: Train ids in [0, classes), or ``ignore_label``; of a size that
        `whole_factor` accepts.
      ignore_label: The id that takes no part.
      class_weights: See `segnext_jax.ops.losses.cross_entropy`.
      label_smoothing: See `segnext_jax.ops.losses.cross_entropy`; in [0, 1).

    Raises:
      ValueError: If the labels are not larger by one even factor in both directions.

    Source: ``CrossEntropyLoss`` in ``mmseg/models/losses/cross_entropy_loss.py`` behind
    ``resize`` in ``decode_head.py`` of SegNeXt@c87bcae.
    """
    factor = whole_factor(logits.shape[1:3], labels.shape[1:])
    if factor is None:
        raise ValueError(
            "labels must be larger than the logits by one even factor: got "
            f"{labels.shape[1:]} and {logits.shape[1:3]}. Enlarge the logits first."
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if class_weights is not None:
        class_weights = tuple(map(float, class_weights))
    rule = _Rule(factor, ignore_label, class_weights, float(label_smoothing))
    sums: Any = _sums(rule, logits, labels)
    return Sums(*sums)


class _Rule(NamedTuple):
    """Constants of the compiled program; see `upsampled_cross_entropy`."""

    factor: int
    ignore_label: int
    class_weights: tuple[float, ...] | None
    label_smoothing: float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(rule: _Rule, logits: Array, labels: Array) -> tuple[Array, Array]:
    # XLA leaves out the gradient, which nobody uses here.
    return _forward(rule, logits, labels)[0]


def _forward(rule: _Rule, logits: Array, labels: Array):
    if logits.shape[3] <= kernels.MAX_CLASSES and has_kernels_for(logits):
        loss, hits, gradient = by_platform(
            logits, labels, cuda=_by_kernel, default=_by_loop, rule=rule
        )
    else:
        loss, hits, gradient = _by_loop(logits, labels, rule=rule)
    return (loss, hits), gradient


def _by_kernel(logits: Array, labels: Array, *, rule: _Rule):
    constants = kernels.Rule(rule.factor, rule.ignore_label, rule.label_smoothing)
    weights = jnp.ones(logits.shape[3], logits.dtype)
    if rule.class_weights is not None:
        weights = jnp.asarray(rule.class_weights, logits.dtype)
    function = functools.partial(kernels.loss_and_gradient, rule=constants)
    loss, hits, gradient = per_image(function, 2)(logits, labels, weights)
    return jnp.sum(loss), jnp.sum(hits), gradient


def _backward(rule: _Rule, gradient: Array, cotangents: tuple[Array, Any]):
    del rule
    return cotangents[0] * gradient, None


_sums.defvjp(_forward, _backward)


def _by_loop(logits: Array, labels: Array, *, rule: _Rule):
    """Return the sums, and the gradient of the first one."""
    batch, height, width, num_classes = logits.shape
    cells = (batch, height + 1, width + 1)
    shares = _shares(rule.factor, logits.dtype)
    corners = _with_border(logits)
    top, bottom = corners[:, :, :-1], corners[:, :, 1:]

    def add_row(sums: tuple, row: tuple) -> tuple:
        share, row_labels = row
        left, right = _sides(top, bottom, share)

        def add_pixel(sums: tuple, pixel: tuple) -> tuple:
            share, pixel_labels = pixel
            scores = (1 - share) * left + share * right
            loss, is_hit, slope = _pixel(rule, scores, pixel_labels)
            losses, hits, by_left, by_right = sums
            by_left = by_left + (1 - share) * slope
            by_right = by_right + share * slope
            return (losses + loss, hits + is_hit, by_left, by_right), None

        losses, hits, by_top, by_bottom = sums
        inner = losses, hits, jnp.zeros_like(left), jnp.zeros_like(right)
        (losses, hits, *inner), _ = lax.scan(add_pixel, inner, (shares, row_labels))
        left, right = (g.reshape(num_classes, *cells) for g in inner)
        mixed = _shifted_sum(left, right, axis=3)
        by_top = by_top + (1 - share) * mixed
        by_bottom = by_bottom + share * mixed
        return (losses, hits, by_top, by_bottom), None

    # The sum over cells comes after the loop: inside the loop, devices that share a
    # batch would exchange a number at each turn.
    num_cells = math.prod(cells)
    sums = (jnp.zeros(num_cells, logits.dtype), jnp.zeros(num_cells, jnp.int32))
    sums = (*sums, jnp.zeros_like(top), jnp.zeros_like(bottom))
    rows = (shares, _by_place_in_cell(rule, labels))
    (losses, hits, *gradients), _ = lax.scan(add_row, sums, rows)
    gradient = _without_border(_shifted_sum(*gradients, axis=2))
    return jnp.sum(losses), jnp.sum(hits), gradient


def upsampled_labels(
    logits: Float[Array, "batch small_height small_width classes"], factor: int
) -> UInt8[Array, "batch height width"]:
    """Return the best class of each pixel of the logits enlarged by an even factor.

    Of equal scores the first class wins. Where a score is nan, the label is the number
    of classes. Scores are float32 at least.

    Raises:
      ValueError: If the factor is odd.
    """
    if factor % 2:
        raise ValueError(f"the factor must be even: got {factor}.")
    if logits.shape[3] < kernels.MAX_CLASSES and has_kernels_for(logits):
        return by_platform(
            logits, cuda=_labels_by_kernel, default=_labels_by_loop, factor=factor
        )
    return _labels_by_loop(logits, factor=factor)


def _labels_by_kernel(logits: Array, *, factor: int) -> Array:
    return per_image(functools.partial(kernels.best_labels, factor=factor), 1)(logits)


def _labels_by_loop(logits: Array, *, factor: int) -> Array:
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    batch, height, width, _ = logits.shape
    shares = _shares(factor, logits.dtype)
    corners = _with_border(logits)
    # The corners of an image lie in one row, so that the corners below and beside a
    # corner are at fixed distances. Cells that begin in the last row or column are cut
    # off.
    rows, columns = height + 2, width + 2
    num_cells = rows * columns
    corners = corners.reshape(*corners.shape[:2], num_cells)
    corners = jnp.pad(corners, ((0, 0), (0, 0), (0, columns + 1)), mode="edge")

    def row(share: Array) -> Array:
        top, bottom = corners[..., : num_cells + 1], corners[..., columns:]
        # Without the barrier XLA would mix the two rows again at every use.
        sides = lax.optimization_barrier((1 - share) * top + share * bottom)

        def score(side: Array) -> Array:
            across = shares[:, None, None]
            return (1 - across) * side[None, :, :-1] + across * side[None, :, 1:]

        return best_class(sides, score, (factor, batch, num_cells))

    labels = lax.map(row, shares)
    labels = labels.reshape(factor, factor, batch, rows, columns)
    labels = jnp.transpose(labels, (2, 3, 0, 4, 1))
    labels = labels.reshape(batch, rows * factor, columns * factor)
    half = factor // 2
    return labels[:, half : half + height * factor, half : half + width * factor]


def _shares(factor: int, dtype: jnp.dtype) -> Array:
    """Return the weight of the farther neighbour of each pixel along a cell's side."""
    return (jnp.arange(factor, dtype=dtype) + 0.5) / factor


def _sides(top: Array, bottom: Array, share: Array) -> tuple[Array, Array]:
    """Return the scores on the left and right sides of cells, [classes, cells] each."""
    mixed = (1 - share) * top + share * bottom
    sides = mixed[..., :-1], mixed[..., 1:]
    # Without the barrier XLA would mix and cut the sides again at every use.
    return lax.optimization_barrier(
        tuple(side.reshape(len(side), -1) for side in sides)
    )


def _with_border(logits: Array) -> Array:
    """Return [classes, batch, height + 2, width + 2], with repeated borders."""
    logits = jnp.transpose(logits, (3, 0, 1, 2))
    return jnp.pad(logits, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")


def _without_border(corners: Array) -> Array:
    """Apply the transpose of `_with_border`: add the border to what it repeats.

    The function compares places, because devices would exchange the pads of the
    transpose that JAX derives.
    """
    for axis in (2, 3):
        inner = lax.slice_in_dim(corners, 1, -1, axis=axis)
        place = lax.broadcasted_iota(jnp.int32, inner.shape, axis)
        for source, target in ((0, 0), (-1, inner.shape[axis] - 1)):
            start = source % corners.shape[axis]
            border = lax.slice_in_dim(corners, start, start + 1, axis=axis)
            inner = inner + jnp.where(place == target, border, 0)
        corners = inner
    return jnp.transpose(corners, (1, 2, 3, 0))


def _by_place_in_cell(rule: _Rule, labels: Array) -> Array:
    """Return labels [row in the cell, column in the cell, cells]."""
    half = rule.factor // 2
    pads = ((0, 0), (half, half), (half, half))
    labels = jnp.pad(labels, pads, constant_values=rule.ignore_label)
    batch, height, width = labels.shape
    shape = (batch, height // rule.factor, rule.factor, width // rule.factor, -1)
    labels = jnp.transpose(labels.reshape(shape), (2, 4, 0, 1, 3))
    return labels.reshape(rule.factor, rule.factor, -1)


def _shifted_sum(first: Array, second: Array, axis: int) -> Array:
    """Return the sum of two arrays, the second moved by one place along an axis."""
    at_end = [(0, int(i == axis)) for i in range(first.ndim)]
    at_start = [pad[::-1] for pad in at_end]
    return jnp.pad(first, at_end) + jnp.pad(second, at_start)


def _pixel(
    rule: _Rule,
    scores: Float[Array, "classes cells"],
    labels: Int[Array, " cells"] | UInt8[Array, " cells"],
) -> tuple[Array, Array, Array]:
    """Return loss and hit [cells], and the slope of the loss [classes, cells].

    With t the target, t_c = (1 - s) w_y [c = y] + s / C w_c, the loss is
    ``sum_c t_c (log sum exp z - z_c)`` and its slope ``softmax(z)_c sum t - t_c``.
    """
    num_classes = scores.shape[0]
    classes = jnp.arange(num_classes, dtype=jnp.int32)[:, None]
    is_label = labels.astype(jnp.int32)[None] == classes
    is_valid = labels != rule.ignore_label
    score = jnp.sum(jnp.where(is_label, scores, 0), axis=0)
    # Of equal scores the first class wins, as for argmax, which XLA:CPU compiles to a
    # loop of scalars. For a label that is no class, `from_label` is -inf: no hit.
    is_before = classes < labels.astype(jnp.int32)[None]
    before = jnp.max(jnp.where(is_before, scores, -jnp.inf), axis=0)
    from_label = jnp.max(jnp.where(is_before, -jnp.inf, scores), axis=0)
    is_hit = is_valid & (score > before) & (score == from_label)
    # The largest score is a constant for the gradient: it is subtracted here and added
    # below.
    largest = lax.stop_gradient(jnp.maximum(before, from_label))
    powers = jnp.exp(scores - largest[None])
    total = jnp.sum(powers, axis=0)
    normaliser = largest + jnp.log(total)

    of_label, target_sum = 1.0, 1.0
    others, other_scores = 0.0, 0.0
    if rule.class_weights is not None:
        weights = jnp.asarray(rule.class_weights, scores.dtype)
        of_label = weights[jnp.minimum(labels, num_classes - 1).astype(jnp.int32)]
        target_sum = of_label
    if rule.label_smoothing:
        smoothing = rule.label_smoothing
        others = jnp.full((num_classes, 1), smoothing / num_classes, scores.dtype)
        if rule.class_weights is not None:
            others = others * weights[:, None]
        of_label = (1 - smoothing) * of_label
        target_sum = of_label + jnp.sum(others)
        other_scores = jnp.sum(others * scores, axis=0)
    loss = target_sum * normaliser - of_label * score - other_scores
    # One factor for each cell drops ignored pixels, not a choice for each class.
    target = jnp.where(is_label, jnp.where(is_valid, of_label, 0)[None], 0)
    if rule.label_smoothing:
        target = target + others * is_valid[None]
    slope = powers * jnp.where(is_valid, target_sum / total, 0)[None] - target
    return (
        jnp.where(is_valid, loss, 0),
        is_hit.astype(jnp.int32),
        slope,
    )
