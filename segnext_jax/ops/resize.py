"""Bilinear resize with half-pixel centres and no antialiasing, as PyTorch does it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

# Marks the operations, so that the count of multiplications can leave them out.
SCOPE = "resize_bilinear"

# A whole number, or an expression of unknowns: see `jax.export.symbolic_shape`.
Dimension = Any


def resize_bilinear(
    images: Float[Array, "batch height width channels"],
    size: tuple[Dimension, ...],
) -> Float[Array, "batch new_height new_width channels"]:
    """Resize to ``size`` = (height, width).

    Equals ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``:
    the source position of output pixel i is ``(i + 0.5) * old / new - 0.5``, clamped
    to the image, also when shrinking (no antialiasing).

    Each axis is a product with a matrix that has two weights in a row. NumPy computes
    the matrices in float64 when JAX traces the function. Matrix units compute the
    products, and the gradient is the transposed product instead of a scatter. Sizes
    that are known only when an exported program runs have no such matrices; such images
    can be enlarged by whole factors.

    Raises:
      ValueError: If a symbolic size is not enlarged by a whole factor.

    Source: ``resize`` in ``mmseg/ops/wrappers.py`` of SegNeXt@c87bcae.
    """
    with jax.named_scope(SCOPE):
        return _resize(images, size)


def _resize(images: Array, size: tuple[Dimension, ...]) -> Array:
    for axis, product, new in (
        (1, "oh,bhwc->bowc", size[0]),
        (2, "ow,bhwc->bhoc", size[1]),
    ):
        old = images.shape[axis]
        if new == old:
            continue
        if isinstance(old, int) and isinstance(new, int):
            weights = jnp.asarray(_weights(old, new), images.dtype)
            images = jnp.einsum(
                product, weights, images, precision=lax.Precision.HIGHEST
            )
        else:
            images = _enlarge(images, axis, _factor(old, new))
    return images


def _weights(old: int, new: int) -> np.ndarray:
    """Return the interpolation matrix [new, old]; each row sums to 1."""
    low, high, fraction = interpolation_taps(old, new)
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    np.add.at(matrix, (rows, low), 1 - fraction)
    np.add.at(matrix, (rows, high), fraction)
    return matrix


def interpolation_taps(
    old: int, new: int
) -> tuple[Int[np.ndarray, " new"], Int[np.ndarray, " new"], Float[np.ndarray, " new"]]:
    """Return where each of ``new`` pixels of a line lies between ``old`` ones.

    Returns:
      Indices of the pixels before and after it, equal at the edges, and the weight of
      the one after, in float64; see `resize_bilinear`.
    """
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    position = np.clip(position, 0, old - 1)
    low = np.minimum(position.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), position - low


def _factor(old: Dimension, new: Dimension) -> int:
    factor = new // old
    if not isinstance(factor, int) or factor * old != new:
        raise ValueError(
            "a size that is known only when the program runs must be enlarged by a "
            f"whole factor: got {old} to {new}. Export sizes that are multiples of 32."
        )
    return factor


def _enlarge(images: Array, axis: int, factor: int) -> Array:
    """Enlarge one dimension by a whole factor, whatever its size.

    Output pixel ``factor * i + phase`` lies ``(phase + 0.5) / factor - 0.5`` from input
    pixel i: a mean of two neighbours with the same weights for all i.
    """
    size = images.shape[axis]

    def part(start: Dimension, stop: Dimension) -> Array:
        return lax.slice_in_dim(images, start, stop, axis=axis)

    before = lax.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = lax.concatenate([part(1, size), part(size - 1, size)], axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        share = abs(offset)
        mean = images * (1 - share) + (before if offset < 0 else after) * share
        phases.append(lax.expand_dims(mean, [axis + 1]))
    shape = (*images.shape[:axis], size * factor, *images.shape[axis + 1 :])
    return lax.concatenate(phases, axis + 1).reshape(shape)
