"""A depthwise convolution with the GELU behind it: what an MLP of MSCAN does inside."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.ops.depthwise import Implementation, depthwise_conv
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.kernels import depthwise_gelu as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.kernels.targets import GPU, TPU, Target, has_planes_for
from segnext_jax.ops.platforms import by_platform, has_kernels_for


def depthwise_gelu(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"],
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return ``gelu(depthwise_conv(images + image_bias, kernel, bias))``.

    On NVIDIA GPUs and TPUs this is by default one kernel that reads and writes each
    value once, and two kernels for the gradient. The gradient keeps the images alone
    and computes the convolution again. Elsewhere the operations run one after another.

    Args:
      images: Feature maps.
      kernel: One filter per channel; both sizes odd.
      bias: Added before the GELU.
      image_bias: Bias of the pointwise convolution that made the images. It is added
        here because XLA for GPUs would write the sum to memory.
      implementation: See `segnext_jax.ops.depthwise.depthwise_conv`.

    Source: ``Mlp`` in ``mscan.py`` of SegNeXt@c87bcae.
    Differs: in the kernels neither sum nor convolution is rounded to ``images.dtype``.
    """
    if implementation == "auto" and has_kernels_for(images):
        return _joined(images, kernel, bias, image_bias)
    images = _biased(images, image_bias)
    return gelu(depthwise_conv(images, kernel, bias, implementation=implementation))


def _biased(images: Array, bias: Array) -> Array:
    return images + bias.astype(images.dtype)[None, None, None]


@jax.custom_vjp
def _joined(images: Array, kernel: Array, bias: Array, image_bias: Array) -> Array:
    return _forward(images, kernel, bias, image_bias)[0]


def _forward(images: Array, kernel: Array, bias: Array, image_bias: Array):
    output, kept, inner = by_platform(
        *(images, kernel, bias, image_bias),
        cuda=_values_of_kernel,
        tpu=_values_on_tpu,
        default=_values,
    )
    return output, (kept, inner, kernel, bias, image_bias)


def _backward(residuals, cotangent: Array):
    return by_platform(
        *(*residuals, cotangent),
        cuda=_gradients_of_kernel,
        tpu=_gradients_on_tpu,
        default=_gradients,
    )


_joined.defvjp(_forward, _backward)


def _values(images: Array, kernel: Array, bias: Array, image_bias: Array):
    images = _biased(images, image_bias)
    inner = depthwise_conv(images, kernel, bias)
    return gelu(inner), images, inner


def _values_of_kernel(
    images: Array, kernel: Array, bias: Array, image_bias: Array, target: Target = GPU
):
    values = functools.partial(kernels.values, target=target)
    output = per_image(values, 1, target)(images, kernel, bias, image_bias)
    # The gradient's kernel has no use for the last, and XLA drops it.
    return output, images, jnp.zeros_like(output)


def _gradients(images, inner, kernel, bias, image_bias, cotangent):
    (inner_gradient,) = jax.vjp(gelu, inner)[1](cotangent)
    by_images, *others = jax.vjp(depthwise_conv, images, kernel, bias)[1](
        inner_gradient
    )
    _, pull = jax.vjp(lambda b: _biased(images, b), image_bias)
    return by_images, *others, *pull(by_images)


def _gradients_of_kernel(
    images, inner, kernel, bias, image_bias, cotangent, target: Target = GPU
):
    del inner
    arguments = images, kernel, bias, image_bias, cotangent
    return gradients_by_kernels(*arguments, target=target)


def _values_on_tpu(images: Array, *weights: Array):
    if not has_planes_for(images):
        return _values(images, *weights)
    return _values_of_kernel(images, *weights, target=TPU)


def _gradients_on_tpu(images: Array, *others: Array):
    if not has_planes_for(images):
        return _gradients(images, *others)
    return _gradients_of_kernel(images, *others, target=TPU)


def gradients_by_kernels(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"],
    cotangent: Float[Array, "batch height width channels"],
    *,
    target: Target = GPU,
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients by images, kernel, bias and the images' bias.

    Args:
      images: See `depthwise_gelu`, as for the next three.
      kernel: See there.
      bias: See there.
      image_bias: See there.
      cotangent: Gradient by the result.
      target: The platform.
    """
    inside = functools.partial(kernels.gradients, target=target)
    outside = functools.partial(kernels.transposed, target=target)
    inner, totals = per_image(inside, 2, target)(
        images, cotangent, kernel, bias, image_bias
    )
    totals = jnp.sum(totals, axis=0)
    by_images, by_image_bias = per_image(outside, 1, target)(
        inner, kernel, bias, image_bias
    )
    by_image_bias = jnp.sum(by_image_bias, axis=0)
    return (
        by_images,
        totals[:-1].reshape(kernel.shape).astype(kernel.dtype),
        totals[-1].astype(bias.dtype),
        by_image_bias.astype(image_bias.dtype),
    )
