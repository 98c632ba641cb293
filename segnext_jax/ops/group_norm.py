"""Group normalisation, with a gradient of its own in short types."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.kernels import moments as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.platforms import by_platform, has_kernels_for

_PIXELS = (1, 2)


def group_norm(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    *,
    num_groups: int,
    epsilon: float,
    has_relu: bool = False,
) -> Float[Array, "batch height width channels"]:
    """Return ``(x - mean) / sqrt(var + epsilon) * scale + bias``, or its ReLU.

    Mean and (biased) variance are those of all pixels and neighbouring channels of a
    group of an image, in float32 at least, around the mean. In short types the images
    are read once for both on NVIDIA GPUs, and the gradient keeps the images alone.

    Args:
      images: Feature maps; the result has their type.
      scale: Factor of each channel.
      bias: Added to each channel.
      num_groups: Number of groups; divides the number of channels.
      epsilon: At least 0.
      has_relu: Whether a ReLU comes last.

    Source: ``nn.GroupNorm`` of PyTorch.
    """
    if images.dtype.itemsize == 2 and has_kernels_for(images):
        options = num_groups, float(epsilon), has_relu
        # A custom derivative has no type that type checkers know.
        output: Any = _normalize(options, images, scale, bias)
        return output
    working = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    groups = working.reshape(*images.shape[:3], num_groups, -1)
    axes = (*_PIXELS, 4)
    mean = jnp.mean(groups, axes)
    var = jnp.mean(jnp.square(groups - mean[:, None, None, :, None]), axes)
    mean, var = (_of_channels(array, images.shape[3]) for array in (mean, var))
    scale, bias = _along(scale), _along(bias)
    output = (working - mean) * (lax.rsqrt(var + epsilon) * scale) + bias
    output = output.astype(images.dtype)
    return jax.nn.relu(output) if has_relu else output


def _along(values: Array) -> Array:
    return values[None, None, None]


def _of_channels(groups: Array, channels: int) -> Array:
    """Return [batch, 1, 1, channels] of [batch, groups]."""
    return jnp.repeat(groups, channels // groups.shape[1], axis=1)[:, None, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(options, images, scale, bias):
    return _forward(options, images, scale, bias)[0]


def _forward(options, images, scale, bias):
    num_groups, epsilon, _ = options
    channels = images.shape[3]
    parts = by_platform(images, default=_moments, cuda=_moments_of_kernel)
    parts = parts.reshape(len(images), 2, num_groups, -1)
    means, squares = parts[:, 0], parts[:, 1]
    size = images.shape[1] * images.shape[2]
    count = size * channels // num_groups
    mean = jnp.mean(means, axis=2)
    squares += size * jnp.square(means - mean[:, :, None])
    inverse = lax.rsqrt(jnp.sum(squares, axis=2) / count + epsilon)
    moments = tuple(_of_channels(array, channels) for array in (mean, inverse))
    output = _affine(options, images, moments, scale, bias)
    return output.astype(images.dtype), (images, moments, scale, bias)


def _affine(options, images: Array, moments: tuple, scale: Array, bias: Array) -> Array:
    mean, inverse = moments
    gain = inverse * _along(scale)
    output = images.astype(mean.dtype) * gain + (_along(bias) - mean * gain)
    return jnp.maximum(output, 0) if options[2] else output


def _backward(options, residuals, cotangent):
    """Return the gradients by images, scale and bias.

    The first, with means over a group, is
    ``(scale g - mean(scale g) - x' mean(scale g x')) / deviation``.
    """
    num_groups, _, has_relu = options
    images, (mean, inverse), scale, bias = residuals
    channels = images.shape[3]
    wide = cotangent.astype(mean.dtype)
    if has_relu:
        # Without the barrier XLA would keep the mask from the forward pass.
        mean, inverse = lax.optimization_barrier((mean, inverse))
        output = _affine(options, images, (mean, inverse), scale, bias)
        wide = jnp.where(output > 0, wide, 0)
    deviations = images.astype(mean.dtype) - mean
    by_bias = jnp.sum(wide, axis=_PIXELS)
    by_scale = jnp.sum(wide * deviations, axis=_PIXELS) * inverse[:, 0, 0]
    count = images[0].size // num_groups

    def mean_of_group(values: Array) -> Array:
        groups = (scale[None] * values).reshape(len(images), num_groups, -1)
        return _of_channels(jnp.sum(groups, axis=2) / count, channels)

    slope = -jnp.square(inverse) * mean_of_group(by_scale)
    shift = -inverse * mean_of_group(by_bias)
    by_images = wide * (inverse * _along(scale)) + deviations * slope + shift
    return (
        by_images.astype(images.dtype),
        jnp.sum(by_scale, axis=0).astype(scale.dtype),
        jnp.sum(by_bias, axis=0).astype(bias.dtype),
    )


_normalize.defvjp(_forward, _backward)


def _moments(images: Array) -> Array:
    """Return each image's means of channels, and sums of squares around them."""
    values = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean = jnp.mean(values, axis=_PIXELS)
    squares = jnp.square(values - mean[:, None, None])
    return jnp.stack([mean, jnp.sum(squares, axis=_PIXELS)], axis=1)


def _moments_of_kernel(images: Array) -> Array:
    return per_image(kernels.moments, 1)(images)
