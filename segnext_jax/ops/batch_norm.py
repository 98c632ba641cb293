"""Normalisation of each channel by the moments of a batch, with its gradient."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.kernels import moments as kernels
from segnext_jax.ops.kernels.per_image import over_devices, per_image
from segnext_jax.ops.kernels.targets import TPU
from segnext_jax.ops.platforms import by_platform, has_kernels_for


class Normalized(NamedTuple):
    """Images, and how a BatchNorm normalises them.

    Attributes:
      images: Before it.
      output: Behind it; None: nowhere in memory.
      mean: Of each channel, as are the following.
      var: Biased.
      scale: Factor behind the normalisation.
      bias: Added behind it.
      epsilon: Added to ``var``.
    """

    images: Array
    output: Array | None
    mean: Array
    var: Array
    scale: Array
    bias: Array
    epsilon: float


def normalize(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    moments: tuple[Array, Array] | None,
    epsilon: float,
) -> Normalized:
    """Return normalised images.

    Args:
      images: Feature maps.
      scale: Factor of each channel.
      bias: Added to each channel.
      moments: Mean and variance; None: those of the batch.
      epsilon: Added to the variance.
    """
    if moments is None:
        output, mean, var = normalize_by_batch(images, scale, bias, epsilon)
    else:
        mean, var = moments
        output = affine(images, mean, var, scale, bias, epsilon)
    return Normalized(images, output, mean, var, scale, bias, epsilon)


def normalize_by_batch(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
) -> tuple[
    Float[Array, "batch height width channels"],
    Float[Array, " channels"],
    Float[Array, " channels"],
]:
    """Return ``(x - mean) / sqrt(var + epsilon) * scale + bias``, mean and var.

    Mean and (biased) var are taken over all pixels of the batch, in float32 at least. A
    kernel for NVIDIA GPUs reads the images once for both; other devices read them
    twice. Both ways sum squares around a mean: E[x^2] - E[x]^2 cancels where the mean
    is large.

    Args:
      images: Feature maps; the result has their type.
      scale: Factor of each channel.
      bias: Added to each channel.
      epsilon: At least 0.
    """
    # A custom derivative has no type that type checkers know.
    results: Any = _normalize(images, scale, bias, float(epsilon))
    output, mean, var = results
    return output, lax.stop_gradient(mean), lax.stop_gradient(var)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(images: Array, scale: Array, bias: Array, epsilon: float):
    return _forward(images, scale, bias, epsilon)[0]


def _forward(images: Array, scale: Array, bias: Array, epsilon: float):
    mean, var = batch_moments(images)
    output = affine(images, mean, var, scale, bias, epsilon)
    return (output, mean, var), (images, mean, var, scale, bias)


def _backward(epsilon: float, residuals, cotangents):
    """Return the gradients by images, scale and bias.

    With x' = (x - mean) / deviation:

        scale / deviation * (g - mean(g) - x' mean(g x')), sum(g x'), sum(g)
    """
    images, mean, var, scale, bias = residuals
    cotangent, _, _ = cotangents
    if has_kernels_for(images):
        sums = by_platform(
            *(images, cotangent, mean), default=_two_sums, cuda=_sums_of_kernel
        )
    else:
        sums = _two_sums(images, cotangent, mean)
    by_bias, by_deviation = sums
    count = images.size // images.shape[3]
    inverse = lax.rsqrt(var + epsilon)
    # Gradient by images: a g + b (x - mean) + c.
    factor = scale.astype(mean.dtype) * inverse
    slope = -factor * jnp.square(inverse) * by_deviation / count
    shift = -factor * by_bias / count - slope * mean
    by_images = (
        cotangent.astype(mean.dtype) * factor[None, None, None]
        + images.astype(mean.dtype) * slope[None, None, None]
        + shift[None, None, None]
    )
    return (
        by_images.astype(images.dtype),
        (by_deviation * inverse).astype(scale.dtype),
        by_bias.astype(bias.dtype),
    )


_normalize.defvjp(_forward, _backward)


def affine(
    images: Float[Array, "batch height width channels"],
    mean: Float[Array, " channels"],
    var: Float[Array, " channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
) -> Float[Array, "batch height width channels"]:
    """Return ``(x - mean) / sqrt(var + epsilon) * scale + bias`` for any moments."""
    gain = scale * lax.rsqrt(var + epsilon)
    shift = bias - mean * gain
    gain, shift = gain.astype(images.dtype), shift.astype(images.dtype)
    return images * gain[None, None, None] + shift[None, None, None]


def batch_moments(
    images: Float[Array, "batch height width channels"],
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return mean and (biased) variance of the batch; see `normalize_by_batch`."""
    if has_kernels_for(images):
        return by_platform(
            images, default=_two_passes, cuda=_one_pass, tpu=_one_exchange
        )
    return _two_passes(images)


def _two_passes(images: Array) -> tuple[Array, Array]:
    values = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    mean = jnp.mean(values, axis=(0, 1, 2))
    var = jnp.mean(jnp.square(values - mean[None, None, None]), axis=(0, 1, 2))
    return mean, var


def _one_pass(images: Array) -> tuple[Array, Array]:
    return over_devices(mean_and_variance)(images)


def _one_exchange(images: Array) -> tuple[Array, Array]:
    return over_devices(exchanged_moments, target=TPU)(images)


def exchanged_moments(
    images: Float[Array, "batch height width channels"], axes: tuple[str, ...] = ()
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return mean and (biased) variance of the batch, read twice, exchanged once.

    Args:
      images: Those of one device; each has as many.
      axes: Mesh axes over which the batch is divided.
    """
    moments = _two_passes(images)
    if not axes:
        return moments
    means, variances = jnp.moveaxis(lax.all_gather(jnp.stack(moments), axes), 1, 0)
    mean, var_of_means = jnp.mean(means, axis=0), jnp.var(means, axis=0)
    return mean, jnp.mean(variances, axis=0) + var_of_means


def mean_and_variance(
    images: Float[Array, "batch height width channels"],
    axes: tuple[str, ...] = (),
    interpret: bool = False,
) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Return mean and (biased) variance of the batch by a kernel.

    Args:
      images: Those of one device.
      axes: Mesh axes over which the batch is divided. Devices exchange once: mean and
        then variance would be two exchanges.
      interpret: Run on any platform, slowly: for tests.
    """
    moments = kernels.moments(images, interpret=interpret)
    size = images.shape[1] * images.shape[2]
    total = len(images) * size
    moments = kernels.joined(moments[:, 0], moments[:, 1], size, total, axis=0)
    if axes:
        of_devices = lax.all_gather(jnp.stack(moments), axes)
        size, total = total, len(of_devices) * total
        moments = kernels.joined(of_devices[:, 0], of_devices[:, 1], size, total, 0)
    return moments[0], moments[1] / total


def _two_sums(images: Array, cotangent: Array, mean: Array) -> tuple[Array, Array]:
    slopes = cotangent.astype(mean.dtype)
    deviations = images.astype(mean.dtype) - mean[None, None, None]
    pixels = (0, 1, 2)
    return jnp.sum(slopes, axis=pixels), jnp.sum(slopes * deviations, axis=pixels)


def _sums_of_kernel(
    images: Array, cotangent: Array, mean: Array
) -> tuple[Array, Array]:
    sums = jnp.sum(per_image(kernels.slopes, 2)(images, cotangent, mean), axis=0)
    return sums[0], sums[1]
