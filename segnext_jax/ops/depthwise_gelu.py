"""A depthwise convolution with the GELU behind it: what an MLP of MSCAN does inside."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.batch_norm import Normalized
from segnext_jax.ops.depthwise import Implementation, depthwise_conv
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.joined_pointwise import (
    by_weights_of_branch,
    cast,
    joins,
    scaled_residual,
)
from segnext_jax.ops.kernels import depthwise_gelu as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.kernels.pointwise import Maps, Options, Summed, Weights
from segnext_jax.ops.kernels.targets import GPU, TPU, Target, has_planes_for
from segnext_jax.ops.platforms import by_platform, has_kernels_for
from segnext_jax.ops.products import composed_product, pixel_sums, product


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


def depthwise_gelu_residual(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"],
    last: tuple[Float[Array, "channels features"], Float[Array, " features"]],
    scale: Float[Array, " features"],
    factors: Float[Array, "batch branches"] | None,
    normalized: Normalized,
    *,
    branch: int = 0,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width features"]:
    """Return `scaled_residual` of `depthwise_gelu`.

    On NVIDIA GPUs the gradient between the two, of short types and at most 128
    features, is computed where it is used.

    Args:
      images: See `depthwise_gelu`, as for the next three.
      kernel: See there.
      bias: See there.
      image_bias: See there.
      last: Kernel and offset; see `scaled_residual`, as for the others.
      scale: See there.
      factors: See there.
      normalized: See there.
      branch: See there.
      implementation: See there.
    """
    weights = kernel, bias, image_bias
    is_joined = joins(implementation, images, last[0]) and normalized.output is None
    if is_joined and kernels.joins(images, last[0]):
        factors = jnp.ones((len(images), 1)) if factors is None else factors
        arguments = images, weights, last, scale, lax.stop_gradient(factors)
        # A custom derivative has no type that type checkers know.
        output: Any = _residual(branch, *arguments, normalized.images)
        return output
    hidden = depthwise_gelu(images, *weights, implementation=implementation)
    return scaled_residual(
        *(hidden, *last, scale, factors, normalized),
        branch=branch,
        implementation=implementation,
    )


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _residual(branch, images, weights, last, scale, factors, shortcut):
    return _residual_forward(branch, images, weights, last, scale, factors, shortcut)[0]


def _residual_forward(branch, images, weights, last, scale, factors, shortcut):
    hidden, inside = _forward(images, *weights)
    maps = Maps(hidden, factors=factors, shortcut=shortcut)
    behind = Weights(last[0], bias=last[1], scale=scale)
    (output,) = product(maps, behind, branch=branch)
    return output, (inside, hidden, last, scale, factors)


def _residual_backward(branch, residuals, cotangent):
    inside, hidden, last, scale, factors = residuals
    by_images, *by_weights = by_platform(
        *(inside, last[0], scale, factors, cotangent),
        default=_separate_gradients,
        cuda=_joined_gradients,
        tpu=_separate_gradients_on_tpu,
        branch=branch,
    )
    summed = Summed(hidden, cotangent, factors=factors)
    totals = pixel_sums(summed, branch=branch)
    *by_last, by_scale = by_weights_of_branch(
        totals[:-1], totals[-1], last[0], last[1], scale
    )
    gradients = tuple(by_last), by_scale
    by_last, by_scale = cast(gradients, (last, scale))
    # `depthwise_gelu_residual` stops the gradient by the factors.
    by_factors = jnp.zeros_like(factors)
    return by_images, tuple(by_weights), by_last, by_scale, by_factors, cotangent


_residual.defvjp(_residual_forward, _residual_backward)


def _by_hidden(last, scale, factors, cotangent, branch: int) -> Array:
    maps, weights = Maps(cotangent, factors=factors), Weights(last, gain=scale)
    options = Options(is_turned=True, branch=branch)
    return composed_product(maps, weights, options=options)[0]


def _separate_gradients(inside, last, scale, factors, cotangent, *, branch: int):
    by_hidden = _by_hidden(last, scale, factors, cotangent, branch)
    return _gradients(*inside, cotangent=by_hidden)


def _separate_gradients_on_tpu(inside, last, scale, factors, cotangent, *, branch: int):
    by_hidden = _by_hidden(last, scale, factors, cotangent, branch)
    return _gradients_on_tpu(*inside, by_hidden)


def _joined_gradients(inside, last, scale, factors, cotangent, *, branch: int):
    images, _, *weights = inside
    joined = functools.partial(kernels.joined_gradients, branch=branch)
    inner, totals = per_image(joined, 3)(
        *(images, cotangent, factors, last, scale, *weights)
    )
    return _behind_gelu(inner, totals, *weights, target=GPU)


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
    weights = kernel, bias, image_bias
    inner, totals = per_image(inside, 2, target)(images, cotangent, *weights)
    return _behind_gelu(inner, totals, *weights, target=target)


def _behind_gelu(inner, totals, kernel, bias, image_bias, target: Target):
    """Return all gradients from that by what the GELU sees."""
    outside = functools.partial(kernels.transposed, target=target)
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
