"""Bilinear resize with half-pixel centres and no antialiasing, as PyTorch does it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from segnext_jax.ops.platforms import by_platform

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
    is_known = all(isinstance(length, int) for length in (*images.shape, *size))
    if is_known and images.dtype.itemsize == 2:
        # A custom derivative has no type that type checkers know.
        resized: Any = _chosen(images, size, False)
        return resized
    for axis, new in ((1, size[0]), (2, size[1])):
        old = images.shape[axis]
        if isinstance(old, int) and isinstance(new, int):
            images = _product(images, axis, _matrix(old, new, False))
        elif new != old:
            images = _enlarge(images, axis, _factor(old, new))
    return images


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _chosen(images: Array, size: tuple[int, int], is_transposed: bool) -> Array:
    """Resize; or, transposed, return the gradient of a resize to the images' size.

    In short types, by sums on NVIDIA GPUs: XLA joins them to one kernel, and for
    products it would copy the images to move one axis or the other to the end.
    """
    return by_platform(
        images,
        default=_by_products,
        cuda=_by_sums,
        size=size,
        is_transposed=is_transposed,
    )


_chosen.defvjp(
    lambda images, size, is_transposed: (
        _chosen(images, size, is_transposed),
        jnp.zeros((*images.shape[1:3], 0)),
    ),
    lambda _, is_transposed, like, cotangent: (
        _chosen(cotangent, like.shape[:2], not is_transposed),
    ),
)


def _by_products(images: Array, *, size: tuple[int, int], is_transposed: bool) -> Array:
    for axis, new in ((1, size[0]), (2, size[1])):
        matrix = _matrix(images.shape[axis], new, is_transposed)
        images = _product(images, axis, matrix)
    return images


def _product(images: Array, axis: int, matrix: np.ndarray) -> Array:
    if matrix.shape[0] == matrix.shape[1]:
        return images
    return jnp.einsum(
        "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc",
        *(jnp.asarray(matrix, images.dtype), images),
        precision=lax.Precision.HIGHEST,
    )


def _by_sums(images: Array, *, size: tuple[int, int], is_transposed: bool) -> Array:
    dtype = images.dtype
    for axis, new in ((1, size[0]), (2, size[1])):
        matrix = _matrix(images.shape[axis], new, is_transposed)
        if new == images.shape[axis]:
            continue
        # A row's weights that are not 0 are neighbours.
        first = np.argmax(matrix != 0, axis=1)
        count = np.max(np.count_nonzero(matrix, axis=1))
        total = jnp.zeros((), jnp.float32)
        for place in np.minimum(first + np.arange(count)[:, None], matrix.shape[1] - 1):
            # Each place once, also where it is the last one more than once.
            weights = matrix[np.arange(new), place]
            matrix[np.arange(new), place] = 0
            values = jnp.take(images, place, axis=axis, mode="clip")
            along = [new if number == axis else 1 for number in range(4)]
            weights = jnp.asarray(weights, jnp.float32).reshape(along)
            total += values.astype(jnp.float32) * weights
        images = total
        if is_transposed:
            # Without it XLA would compute all sums of one axis for each of the other's.
            images = lax.optimization_barrier(images.astype(dtype))
    return images.astype(dtype)


def _matrix(old: int, new: int, is_transposed: bool) -> np.ndarray:
    return _weights(new, old).T if is_transposed else _weights(old, new)


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
