"""The programs that the devices run between images and labels: pure functions.

No program contains the size of an original image, so that XLA compiles a program once
for each size of the network's input; see `resampling` for the matrices.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from segnext_jax.ops.best_class import best_class
from segnext_jax.ops.photometric import normalize
from segnext_jax.ops.upsampled import upsampled_labels


@functools.partial(jax.jit, static_argnames=("mean", "std", "is_mirrored"))
def network_input(
    images: UInt8[Array, "batch height width 3"],
    inner: Int[Array, "batch 2"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    is_mirrored: bool,
) -> Float[Array, "batch height width 3"]:
    """Mirror and normalise the images; padding becomes 0 afterwards.

    Padding stays below and to the right of a mirrored image, because the official code
    mirrors first.
    """
    y = jnp.arange(images.shape[1])[None]
    x = jnp.arange(images.shape[2])[None]
    heights, widths = inner[:, :1], inner[:, 1:]
    if is_mirrored:
        mirrored = jnp.where(x < widths, widths - 1 - x, x)
        images = jnp.take_along_axis(images, mirrored[:, None, :, None], axis=2)
    is_inside = (y < heights)[:, :, None] & (x < widths)[:, None]
    return jnp.where(is_inside[..., None], normalize(images, mean, std), 0)


@functools.partial(jax.jit, static_argnames="size")
def cut_window(
    inputs: Float[Array, "batch height width 3"],
    top: Any,
    left: Any,
    *,
    size: tuple[int, int],
) -> Float[Array, "batch window_height window_width 3"]:
    """Return the window of a size whose upper left pixel is (top, left)."""
    batch, _, _, channels = inputs.shape
    return lax.dynamic_slice(inputs, (0, top, left, 0), (batch, *size, channels))


def score_type(logits: Array) -> Any:
    """Return the type in which logits are resampled: at least float32.

    Interpolated scores of two classes may differ by less than bfloat16 resolves.
    """
    return jnp.promote_types(logits.dtype, jnp.float32)


@jax.jit
def resample(
    logits: Float[Array, "batch small_height small_width classes"],
    vertical: Any,
    horizontal: Any,
) -> Float[Array, "batch tile tile classes"]:
    """Return the logits of one tile of the original images.

    Args:
      logits: The logits of all windows of one view, side by side.
      vertical: Rows of logits that the tile needs, [batch, needed], and their weights,
        [batch, tile, needed].
      horizontal: The same of columns.
    """

    def one_image(logits, rows, row_weights, columns, column_weights):
        part = logits[rows][:, columns].astype(row_weights.dtype)
        # In this order XLA need not transpose the result of the second product, which
        # is the large one: a third of the time on a CPU.
        part = jnp.einsum("xk,ikc->ixc", column_weights, part, precision="highest")
        return jnp.einsum("yi,ixc->yxc", row_weights, part, precision="highest")

    return jax.vmap(one_image)(logits, *vertical, *horizontal)


@jax.jit
def resampled_labels(
    logits: Float[Array, "batch small_height small_width classes"],
    vertical: Any,
    horizontal: Any,
) -> UInt8[Array, "batch tile tile"]:
    """Return `best_labels` of `resample`, and take the same arguments.

    Here classes lie between rows and columns. So XLA transposes the result of neither
    product, and compares classes along contiguous columns.
    """

    def one_image(logits, rows, row_weights, columns, column_weights):
        part = logits[rows][:, columns].astype(row_weights.dtype)
        part = jnp.einsum("ikc,xk->icx", part, column_weights, precision="highest")
        scores = jnp.einsum("yi,icx->ycx", row_weights, part, precision="highest")
        shape = scores.shape[0], scores.shape[2]
        return best_class(scores, lambda scores: scores, shape, axis=1)

    return jax.vmap(one_image)(logits, *vertical, *horizontal)


enlarged_labels = jax.jit(upsampled_labels, static_argnums=1)


@functools.partial(jax.jit, donate_argnums=0)
def add_probabilities(
    total: Float[Array, "batch tile tile classes"] | None,
    weight: Any,
    logits: Float[Array, "batch small_height small_width classes"],
    vertical: Any,
    horizontal: Any,
) -> Float[Array, "batch tile tile classes"]:
    """Return ``total`` (None: 0) and the weighted softmax of `resample` added up."""
    scores = resample(logits, vertical, horizontal)
    probabilities = weight * jax.nn.softmax(scores, axis=-1)
    return probabilities if total is None else total + probabilities


def mean_probabilities(views: Sequence[tuple]) -> Array:
    """Return the mean probabilities of a tile over views of (logits, matrices).

    One program per view: XLA would compile a program for all views anew for each
    combination of their sizes.
    """
    total = None
    for view in views:
        total = add_probabilities(total, 1 / len(views), *view)
    assert total is not None
    return total


@jax.jit
def best_labels(
    scores: Float[Array, "batch height width classes"],
) -> UInt8[Array, "batch height width"]:
    """Return the first of the best classes; the number of classes where a score is nan.

    The function takes two plain reductions, because XLA compiles argmax to a loop that
    takes seven times as long on a CPU.
    """
    num_classes = scores.shape[-1]
    is_best = scores == jnp.max(scores, axis=-1, keepdims=True)
    classes = lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    best = jnp.min(jnp.where(is_best, classes, num_classes), axis=-1)
    return best.astype(jnp.uint8)


softmax = jax.jit(functools.partial(jax.nn.softmax, axis=-1))
