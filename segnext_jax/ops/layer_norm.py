"""Layer normalisation over channels, with a gradient of its own in short types."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def layer_norm(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
) -> Float[Array, "batch height width channels"]:
    """Return ``(x - mean) / sqrt(var + epsilon) * scale + bias``, for each pixel.

    Mean and (biased) variance are those of a pixel's channels, in float32 at least. In
    short types the gradient keeps them: XLA for GPUs, which computes them again, writes
    what is summed over pixels to memory, in float32.

    Args:
      images: Feature maps; the result has their type.
      scale: Factor of each channel.
      bias: Added to each channel.
      epsilon: At least 0.

    Source: ``nn.LayerNorm`` of PyTorch.
    """
    if images.dtype.itemsize == 2:
        # A custom derivative has no type that type checkers know.
        output: Any = _short(float(epsilon), images, scale, bias)
        return output
    return _forward(epsilon, images, scale, bias)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _short(epsilon, images, scale, bias):
    return _forward(epsilon, images, scale, bias)[0]


def _forward(epsilon, images, scale, bias):
    values = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean = jnp.mean(values, axis=-1, keepdims=True)
    var = jnp.mean(jnp.square(values - mean), axis=-1, keepdims=True)
    inverse = lax.rsqrt(var + epsilon)
    output = (values - mean) * (inverse * _along(scale)) + _along(bias)
    return output.astype(images.dtype), (images, mean, inverse, scale, bias)


def _backward(epsilon, residuals, cotangent):
    """Return the gradients.

    That by images, with means over a pixel's channels, is
    ``(scale g - mean(scale g) - x' mean(scale g x')) / deviation``.
    """
    del epsilon
    images, mean, inverse, scale, bias = residuals
    mean, inverse = lax.optimization_barrier((mean, inverse))
    normal = (images.astype(mean.dtype) - mean) * inverse
    wide = cotangent.astype(mean.dtype)
    slopes = wide * _along(scale)
    means = (
        jnp.mean(values, -1, keepdims=True) for values in (slopes, slopes * normal)
    )
    of_one, of_normal = means
    by_images = inverse * (slopes - of_one - normal * of_normal)
    by_scale, by_bias = (jnp.sum(v, (0, 1, 2)) for v in (wide * normal, wide))
    return (
        by_images.astype(images.dtype),
        by_scale.astype(scale.dtype),
        by_bias.astype(bias.dtype),
    )


_short.defvjp(_forward, _backward)


def _along(values: Array) -> Array:
    return values[None, None, None]
