"""Products over channels and sums over pixels, by kernels on NVIDIA GPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.gelu import gelu_value
from segnext_jax.ops.kernels import pointwise as kernels
from segnext_jax.ops.kernels.per_image import over_devices, per_image
from segnext_jax.ops.kernels.pointwise import Maps, Options, Summed, Weights
from segnext_jax.ops.kernels.row_program import sum_type
from segnext_jax.ops.platforms import by_platform


def product(
    maps: Maps, weights: Weights, **options: Any
) -> list[Float[Array, "batch height width features"]]:
    """Return what `kernels.product` does: by it on NVIDIA GPUs.

    Args:
      maps: See there, as for the others.
      weights: See there.
      **options: Of `Options`.
    """
    return by_platform(
        *(maps, weights),
        default=composed_product,
        cuda=divided_product,
        options=Options(**options),
    )


def pixel_sums(
    maps: Summed,
    centre: Array | None = None,
    centre_beside: Array | None = None,
    branch: int = 0,
) -> Float[Array, "rows features"]:
    """Return what `kernels.pixel_sums` does: by it on NVIDIA GPUs.

    Args:
      maps: See there, as for the others.
      centre: See there.
      centre_beside: See there.
      branch: See there.
    """
    return by_platform(
        *(maps, centre, centre_beside),
        default=composed_sums,
        cuda=divided_sums,
        branch=branch,
    )


def composed_product(
    maps: Maps, weights: Weights, *, options: Options
) -> list[Float[Array, "batch height width features"]]:
    """Return what `kernels.product` does, left to the compiler.

    Args:
      maps: See there, as for the others.
      weights: See there.
      options: See there.
    """
    sums = sum_type(maps.images.dtype)
    images = maps.images
    if maps.times is not None:
        images = images.astype(sums) * maps.times.astype(sums)
    if weights.gain is not None:
        images = images.astype(sums) * _along(weights.gain, sums)
    if weights.shift is not None:
        images = images.astype(sums) + _along(weights.shift, sums)
    total = lax.dot_general(
        images.astype(maps.images.dtype),
        weights.kernel.astype(maps.images.dtype),
        (((3,), (1 if options.is_turned else 0,)), ((), ())),
        preferred_element_type=sums,
    )
    if weights.result_gain is not None:
        total *= _along(weights.result_gain, sums)
    if weights.bias is not None:
        total += _along(weights.bias, sums)
    if maps.second is not None and weights.slope is not None:
        total += maps.second.astype(sums) * _along(weights.slope, sums)
    if weights.scale is not None:
        total *= _along(weights.scale, sums)
    if maps.factors is not None:
        factors = maps.factors[:, options.branch].astype(sums)
        total *= factors[:, None, None, None]
    result = gelu_value(total) if options.has_gelu else total
    if options.has_relu:
        result = jnp.maximum(result, 0)
    if maps.gate is not None:
        result *= maps.gate.astype(sums)
    if maps.second is not None and options.adds_second:
        result += maps.second.astype(sums)
    if maps.shortcut is not None:
        result += maps.shortcut.astype(sums)
    results = (result, total) if options.keeps_linear else (result,)
    return [values.astype(maps.images.dtype) for values in results]


def composed_sums(
    maps: Summed, centre: Array | None, centre_beside: Array | None, *, branch: int = 0
) -> Float[Array, "rows features"]:
    """Return what `kernels.pixel_sums` does, left to the compiler.

    Args:
      maps: See there, as for the others.
      centre: See there.
      centre_beside: See there.
      branch: See there.
    """
    sums = sum_type(maps.images.dtype)
    images, slopes = maps.images, maps.cotangent.astype(sums)
    if centre is not None:
        images = images.astype(sums) - _along(centre, sums)
    if maps.times is not None:
        slopes *= maps.times.astype(sums)
    if maps.factors is not None:
        slopes *= maps.factors[:, branch].astype(sums)[:, None, None, None]
    left, right = (
        array.astype(maps.images.dtype).reshape(-1, array.shape[-1])
        for array in (images, slopes)
    )
    contracted = (((0,), (0,)), ((), ()))
    rows = [
        lax.dot_general(left, right, contracted, preferred_element_type=sums),
        jnp.sum(slopes, axis=(0, 1, 2))[None],
    ]
    if maps.beside is not None and centre_beside is not None:
        beside = maps.beside.astype(sums) - _along(centre_beside, sums)
        rows.append(jnp.sum(slopes * beside, axis=(0, 1, 2))[None])
    return jnp.concatenate(rows)


def _along(values: Array, dtype: jnp.dtype) -> Array:
    return values.astype(dtype)[None, None, None]


def divided_product(
    maps: Maps, weights: Weights, *, options: Options, interpret: bool = False
) -> list[Float[Array, "batch height width features"]]:
    """Return what `kernels.product` does; each device computes its images.

    Args:
      maps: See there, as for the others.
      weights: See there.
      options: See there.
      interpret: See there.
    """
    leaves, tree = jax.tree.flatten(maps)
    shared, shared_tree = jax.tree.flatten(weights)

    def of_images(*arrays: Array) -> list[Array]:
        return kernels.product(
            jax.tree.unflatten(tree, arrays[: len(leaves)]),
            jax.tree.unflatten(shared_tree, arrays[len(leaves) :]),
            options=options,
            interpret=interpret,
        )

    return per_image(of_images, len(leaves))(*leaves, *shared)


def divided_sums(
    maps: Summed,
    centre: Array | None,
    centre_beside: Array | None,
    *,
    branch: int,
    interpret: bool = False,
) -> Float[Array, "rows features"]:
    """Return what `kernels.pixel_sums` does; devices exchange sums of their images.

    Args:
      maps: See there, as for the others.
      centre: See there.
      centre_beside: See there.
      branch: See there.
      interpret: See there.
    """
    leaves, tree = jax.tree.flatten(maps)
    centres, centre_tree = jax.tree.flatten((centre, centre_beside))

    def of_images(*arrays: Array, axes: tuple[str, ...]) -> Array:
        totals = kernels.pixel_sums(
            jax.tree.unflatten(tree, arrays[: len(leaves)]),
            *jax.tree.unflatten(centre_tree, arrays[len(leaves) :]),
            branch=branch,
            interpret=interpret,
        )
        return lax.psum(totals, axes) if axes else totals

    return over_devices(of_images, len(leaves))(*leaves, *centres)
