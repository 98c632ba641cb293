"""The multi-scale attention by kernels for GPUs and TPUs, with its gradient."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.ops.kernels import depthwise_gelu, multi_scale
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.kernels.row_program import pack
from segnext_jax.ops.kernels.targets import GPU, Target
from segnext_jax.ops.multi_scale_composed import Weights, num_pairs


def check(weights: Weights) -> None:
    """Refuse kernels that are no strips, or of even sizes.

    Raises:
      ValueError: If a kernel has an even size, or a kernel of a pair is no strip.
    """
    shapes = {name: kernel.shape[:2] for name, (kernel, _) in weights.items()}
    is_odd = all(n % 2 for shape in shapes.values() for n in shape)
    ends = {"1": 0, "2": 1}
    is_strips = all(
        shape[ends[name[-1]]] == 1 for name, shape in shapes.items() if "_" in name
    )
    if not (is_strips and is_odd):
        raise ValueError(
            "kernels of the multi-scale attention must have odd sizes, 1xk for "
            f"conv<i>_1 and kx1 for conv<i>_2: got {shapes}."
        )


def values(
    images: Float[Array, "batch height width channels"],
    weights: Weights,
    *,
    target: Target = GPU,
) -> tuple[
    Float[Array, "batch height width channels"],
    Float[Array, "batch height width channels"],
]:
    """Return ``d + sum_i column_i(row_i(d))`` and ``d = conv0(images)``.

    Two kernels compute the sum, and each reads and writes every value once. Sums are
    float32 at least; the results of row strips are not rounded.

    Args:
      images: Feature maps, of less than 2^31 values.
      weights: See `segnext_jax.ops.multi_scale.multi_scale`.
      target: The platform.
    """
    square = functools.partial(depthwise_gelu.values, has_gelu=False, target=target)
    local = per_image(square, 1, target)(images, *weights["conv0"])
    if not num_pairs(weights):
        return local, local
    add = functools.partial(
        multi_scale.add_strips, pairs=_pairs(weights), target=target
    )
    return per_image(add, 1, target)(local, _pack(local, weights)), local


def gradients(
    images: Float[Array, "batch height width channels"],
    local: Float[Array, "batch height width channels"],
    weights: Weights,
    cotangent: Float[Array, "batch height width channels"],
    *,
    target: Target = GPU,
) -> tuple[Float[Array, "batch height width channels"], dict]:
    """Return the gradients by images and weights, from three kernels.

    Args:
      images: See `values`, as for the others.
      local: What `values` gave beside the result.
      weights: See there.
      cotangent: Gradient by the result.
      target: See there.
    """
    by_local, by_weights = cotangent, {}
    if num_pairs(weights):
        options = {"pairs": _pairs(weights), "target": target}
        add = functools.partial(multi_scale.add_strips, **options)
        sums = functools.partial(multi_scale.strip_gradients, **options)
        turned = {
            name: (kernel[::-1, ::-1], jnp.zeros_like(bias))
            for name, (kernel, bias) in weights.items()
        }
        by_local = per_image(add, 1, target)(cotangent, _pack(cotangent, turned))
        totals = per_image(sums, 2, target)(local, cotangent, _pack(local, weights))
        by_weights = _unpack(jnp.sum(totals, axis=0), weights)

    kernel, bias = weights["conv0"]
    square = functools.partial(
        multi_scale.square_gradients, size=kernel.shape[:2], target=target
    )
    packed = pack(images.dtype, kernel, bias)
    by_images, totals = per_image(square, 2, target)(images, by_local, packed)
    totals = jnp.sum(totals, axis=0)
    by_kernel = totals[:-1].reshape(kernel.shape)[::-1, ::-1].astype(kernel.dtype)
    by_weights["conv0"] = by_kernel, totals[-1].astype(bias.dtype)
    return by_images, by_weights


def _names(weights: Weights) -> list[str]:
    """Return the strips in the order in which they are packed."""
    pairs = range(num_pairs(weights))
    return [f"conv{index}_{half}" for index in pairs for half in (1, 2)]


def _pairs(weights: Weights) -> tuple[multi_scale.Strip, ...]:
    taps = [max(weights[name][0].shape[:2]) for name in _names(weights)]
    return multi_scale.strips(list(zip(taps[::2], taps[1::2], strict=True)))


def _pack(images: Array, weights: Weights) -> Array:
    return pack(images.dtype, *(a for name in _names(weights) for a in weights[name]))


def _unpack(packed: Array, weights: Weights) -> dict:
    """Return the parts of packed gradients in the shapes and types of the weights."""
    result, index = {}, 0
    for name in _names(weights):
        kernel, bias = weights[name]
        stop = index + max(kernel.shape[:2])
        taps = jax.lax.slice_in_dim(packed, index, stop).reshape(kernel.shape)
        result[name] = taps.astype(kernel.dtype), packed[stop].astype(bias.dtype)
        index = stop + 1
    return result
