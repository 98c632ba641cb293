"""1x1 convolution: a matrix product over channels, with its own gradient."""

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
    output = _product(images, kernel.astype(images.dtype))
    if bias is None:
        return output
    shape = (1,) * (output.ndim - 1) + bias.shape
    return output + bias.astype(images.dtype).reshape(shape)


@jax.custom_vjp
def _product(images: Array, kernel: Array) -> Array:
    return lax.dot_general(images, kernel, (((images.ndim - 1,), (0,)), ((), ())))


def _forward(images: Array, kernel: Array):
    return _product(images, kernel), (images, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array):
    images, kernel = residuals
    images_gradient = lax.dot_general(
        cotangent, kernel, (((cotangent.ndim - 1,), (1,)), ((), ()))
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
