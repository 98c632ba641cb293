"""1x1 convolution, bias and scale of channels, with gradients of their own.

Gradients by parameters are sums over all pixels of all devices: in float32 at least,
whatever the type of the images.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def pointwise(
    images: Float[Array, "*dims channels"],
    kernel: Float[Array, "channels features"],
    bias: Float[Array, " features"] | None = None,
) -> Float[Array, "*dims features"]:
    """Return ``images @ kernel + bias``, in the type of ``images``.

    Its gradient is written as products of matrices, [pixels, channels] each, which
    XLA:CPU takes as they are; see `_backward`.

    Args:
      images: Feature maps, or any arrays of channels.
      kernel: Converted to the type of ``images``.
      bias: Added to the result, or None.

    Source: ``Conv2d(channels, features, 1)`` in ``mscan.py`` of SegNeXt@c87bcae.
    """
    output = _product(images, kernel)
    return output if bias is None else add_bias(output, bias)


@jax.custom_vjp
def add_bias(
    images: Float[Array, "*dims channels"], bias: Float[Array, " channels"]
) -> Float[Array, "*dims channels"]:
    """Return ``images + bias``, in the type of ``images``."""
    return images + _along_channels(bias, images)


def _add_bias_backward(bias: Array, cotangent: Array):
    return cotangent, _sum_of_pixels(cotangent, bias)


add_bias.defvjp(lambda images, bias: (add_bias(images, bias), bias), _add_bias_backward)


@jax.custom_vjp
def scale_channels(
    images: Float[Array, "*dims channels"], factors: Float[Array, " channels"]
) -> Float[Array, "*dims channels"]:
    """Return ``images * factors``, in the type of ``images``."""
    return images * _along_channels(factors, images)


def _scale_backward(residuals: tuple[Array, Array], cotangent: Array):
    images, factors = residuals
    return (
        cotangent * _along_channels(factors, cotangent),
        _sum_of_pixels(cotangent * images, factors),
    )


scale_channels.defvjp(
    lambda images, factors: (scale_channels(images, factors), (images, factors)),
    _scale_backward,
)


def _along_channels(values: Array, images: Array) -> Array:
    return values.astype(images.dtype).reshape((1,) * (images.ndim - 1) + values.shape)


def _sum_of_pixels(images: Array, like: Array) -> Array:
    total_type = jnp.promote_types(images.dtype, jnp.float32)
    pixels = tuple(range(images.ndim - 1))
    return jnp.sum(images, axis=pixels, dtype=total_type).astype(like.dtype)


@jax.custom_vjp
def _product(images: Array, kernel: Array) -> Array:
    contracted = (((images.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(images, kernel.astype(images.dtype), contracted)


def _forward(images: Array, kernel: Array):
    return _product(images, kernel), (images, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array):
    images, kernel = residuals
    contracted = (((cotangent.ndim - 1,), (1,)), ((), ()))
    images_gradient = lax.dot_general(
        cotangent, kernel.astype(images.dtype), contracted
    )
    # The product is one of matrices. With more dimensions XLA would move the pixels
    # behind the channels: a transposed copy, computed with all that the array is
    # computed from.
    images = images.reshape(-1, images.shape[-1])
    cotangent = cotangent.reshape(-1, cotangent.shape[-1])
    kernel_gradient = lax.dot_general(
        images,
        cotangent,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(images.dtype, jnp.float32),
    )
    return images_gradient, kernel_gradient.astype(kernel.dtype)


_product.defvjp(_forward, _backward)
