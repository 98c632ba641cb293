"""A depthwise convolution with the GELU behind it: what an MLP of MSCAN does inside."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.ops.depthwise import Implementation, depthwise_conv
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.kernels import depthwise_gelu as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.platforms import by_platform, has_kernels_for


def depthwise_gelu(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return ``gelu(depthwise_conv(images, kernel, bias))``.

    On NVIDIA GPUs, by default, one kernel that reads and writes each value once, and
    two for the gradient, which computes the convolution again and keeps the images
    alone. Elsewhere the one after the other.

    Args:
      images: Feature maps.
      kernel: One filter per channel; both sizes odd.
      bias: Added before the GELU.
      implementation: See `segnext_jax.ops.depthwise.depthwise_conv`.

    Source: ``Mlp`` in ``mscan.py`` of SegNeXt@c87bcae.
    Differs: in the kernels the convolution's result is not rounded to ``images.dtype``.
    """
    if implementation == "auto" and has_kernels_for(images):
        return _joined(images, kernel, bias)
    return gelu(depthwise_conv(images, kernel, bias, implementation=implementation))


@jax.custom_vjp
def _joined(images: Array, kernel: Array, bias: Array) -> Array:
    return _forward(images, kernel, bias)[0]


def _forward(images: Array, kernel: Array, bias: Array):
    output, inner = by_platform(
        images, kernel, bias, cuda=_values_of_kernel, default=_values
    )
    return output, (images, inner, kernel, bias)


def _backward(residuals, cotangent: Array):
    return by_platform(
        *residuals, cotangent, cuda=_gradients_of_kernel, default=_gradients
    )


_joined.defvjp(_forward, _backward)


def _values(images: Array, kernel: Array, bias: Array) -> tuple[Array, Array]:
    inner = depthwise_conv(images, kernel, bias)
    return gelu(inner), inner


def _values_of_kernel(images: Array, kernel: Array, bias: Array) -> tuple[Array, Array]:
    output = per_image(kernels.values, 1)(images, kernel, bias)
    # The gradient's kernel has no use for it, and XLA drops it.
    return output, jnp.zeros_like(output)


def _gradients(
    images: Array, inner: Array, kernel: Array, bias: Array, cotangent: Array
) -> tuple[Array, Array, Array]:
    (inner_gradient,) = jax.vjp(gelu, inner)[1](cotangent)
    return jax.vjp(depthwise_conv, images, kernel, bias)[1](inner_gradient)


def _gradients_of_kernel(
    images: Array, inner: Array, kernel: Array, bias: Array, cotangent: Array
) -> tuple[Array, Array, Array]:
    del inner
    return gradients_by_kernels(images, kernel, bias, cotangent)


def gradients_by_kernels(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    cotangent: Float[Array, "batch height width channels"],
    *,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Return the gradients by images, kernel and bias.

    Args:
      images: See `depthwise_gelu`, as for the next two.
      kernel: See there.
      bias: See there.
      cotangent: Gradient by the result.
      interpret: Run on any platform, slowly: for tests.
    """

    def inside(*arrays: Array) -> tuple[Array, Array]:
        return kernels.gradients(*arrays, interpret=interpret)

    def transposed(*arrays: Array) -> Array:
        return kernels.values(*arrays, has_gelu=False, interpret=interpret)

    inner, totals = per_image(inside, 2)(images, cotangent, kernel, bias)
    turned = kernel[::-1, ::-1]
    by_images = per_image(transposed, 1)(inner, turned, jnp.zeros_like(bias))
    totals = jnp.sum(totals, axis=0)
    by_kernel = totals[:-1].reshape(kernel.shape).astype(kernel.dtype)
    return by_images, by_kernel, totals[-1].astype(bias.dtype)
