"""Bilinear resize with half-pixel centres and no antialiasing, as PyTorch does it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

# Marks the operations, so that the count of multiplications can leave them out.
SCOPE = "resize_bilinear"


def resize_bilinear(
    images: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """Resize to ``size`` = (height, width).

    Equals ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``:
    the source position of output pixel i is ``(i + 0.5) * old / new - 0.5``, clamped
    to the image, also when shrinking (no antialiasing).

    The two axes are two products with matrices of two weights a row, computed in
    float64 when tracing: matrix units do them, and the gradient is the transposed
    product instead of a scatter.

    Source: ``resize`` in ``mmseg/ops/wrappers.py`` of SegNeXt@c87bcae.
    """
    with jax.named_scope(SCOPE):
        return _resize(images, size)


def _resize(images: Array, size: tuple[int, int]) -> Array:
    _, height, width, _ = images.shape
    new_height, new_width = size
    if new_height != height:
        weights = jnp.asarray(_weights(height, new_height), images.dtype)
        images = jnp.einsum(
            "oh,bhwc->bowc", weights, images, precision=lax.Precision.HIGHEST
        )
    if new_width != width:
        weights = jnp.asarray(_weights(width, new_width), images.dtype)
        images = jnp.einsum(
            "ow,bhwc->bhoc", weights, images, precision=lax.Precision.HIGHEST
        )
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
