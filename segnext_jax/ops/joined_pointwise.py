"""1x1 convolutions of MSCAN's blocks, joined with what stands before and behind them.

On NVIDIA GPUs normalisation, GELU, gate, scale and shortcut move no byte of their own:
they happen where a product's kernel reads or writes. Gradients by parameters are sums
over pixels of one kernel, which also gives those by biases, scales of channels and
normalisations: see `normalized_pointwise` and `scaled_residual`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.batch_norm import (
    Normalized,
    affine,
    batch_moments,
    normalize,
)
from segnext_jax.ops.depthwise import Implementation
from segnext_jax.ops.gelu import gelu, gelu_slope
from segnext_jax.ops.kernels.pointwise import Maps, Summed, Weights, takes
from segnext_jax.ops.kernels.row_program import sum_type
from segnext_jax.ops.platforms import has_kernels_for
from segnext_jax.ops.pointwise import pointwise, scale_channels
from segnext_jax.ops.products import pixel_sums, product


def joins(
    implementation: Implementation, images: Array, kernel: Float[Array, "_ _"]
) -> bool:
    """Return whether a product has kernels: of short types, and where XLA chooses."""
    return (
        implementation == "auto"
        and images.dtype.itemsize == 2
        and has_kernels_for(images)
        and images.size // kernel.shape[0] * kernel.shape[1] < 2**31 * len(images)
        and takes(*kernel.shape)
    )


def normalized_pointwise(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    moments: tuple[Array, Array] | None,
    epsilon: float,
    *,
    kernel: Float[Array, "channels features"],
    offset: Float[Array, " features"] | None = None,
    has_gelu: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Float[Array, "batch height width features"], Normalized]:
    """Return ``gelu(normalize(images) @ kernel + offset)``, and what was normalised.

    With x the images, x' = (x - mean) / deviation, g the gradient by the product's
    result and s = sum(g), the kernel's gradient is that of a sum over pixels,
    T = sum((x - mean) g'), times scale / deviation, plus the outer product of bias and
    s. What BatchNorm's gradient needs are sums over pixels of h = g K' and of
    (x - mean) h; these are K s and the sums over each row of K * T.

    Args:
      images: See `normalize`, as for the next four.
      scale: See there.
      bias: See there.
      moments: See there.
      epsilon: See there.
      kernel: Of the 1x1 convolution.
      offset: Its bias; None: 0.
      has_gelu: Whether a GELU comes last.
      implementation: ``"auto"`` has kernels for short types on NVIDIA GPUs; all others
        run one operation after another.
    """
    if joins(implementation, images, kernel):
        arguments = images, moments, scale, bias, kernel, offset
        results: Any = _normalized((float(epsilon), has_gelu), *arguments)
        output, images, mean, var = results
        return output, Normalized(images, None, mean, var, scale, bias, epsilon)
    normalized = normalize(images, scale, bias, moments, epsilon)
    output = pointwise(_output(normalized), kernel, offset)
    return gelu(output) if has_gelu else output, normalized


def relu_pointwise(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "channels features"],
    offset: Float[Array, " features"],
) -> Float[Array, "batch height width features"]:
    """Return ``relu(images @ kernel + offset)``; see `normalized_pointwise`."""
    if joins("auto", images, kernel):
        # A custom derivative has no type that type checkers know.
        output: Any = _relu(images, kernel, offset)
        return output
    return jax.nn.relu(pointwise(images, kernel, offset))


def gated_pointwise(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "channels features"],
    offset: Float[Array, " features"],
    gate: Float[Array, "batch height width features"],
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width features"]:
    """Return ``(images @ kernel + offset) * gate``.

    Args:
      images: Feature maps.
      kernel: See `normalized_pointwise`.
      offset: See there.
      gate: Feature maps.
      implementation: See there.
    """
    if joins(implementation, images, kernel):
        output: Any = _gated(images, kernel, offset, gate)
        return output
    return pointwise(images, kernel, offset) * gate


def scaled_residual(
    hidden: Float[Array, "batch height width channels"],
    kernel: Float[Array, "channels features"],
    offset: Float[Array, " features"],
    scale: Float[Array, " features"],
    factors: Float[Array, "batch branches"] | None,
    normalized: Normalized,
    *,
    branch: int = 0,
    has_shortcut: bool = False,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width features"]:
    """Return ``images + factors * scale * (shortcut + hidden @ kernel + offset)``.

    The gradient by ``scale`` is a sum over pixels of g times what is scaled. It is the
    sum of each column of K * T, with T = sum(hidden g') over pixels, plus what the
    shortcut and the offset add.

    Args:
      hidden: Feature maps.
      kernel: See `normalized_pointwise`.
      offset: See there.
      scale: Factor of each channel.
      factors: Of each image, for all branches of the network; None: 1.
      normalized: Has the images.
      branch: Which of the factors it is.
      has_shortcut: Whether there are the normalised images, too.
      implementation: See `normalized_pointwise`.
    """
    images = normalized.images
    if factors is not None:
        factors = lax.stop_gradient(factors)
    if normalized.output is None and joins(implementation, hidden, kernel):
        norm = tuple(normalized[2:6]) if has_shortcut else None
        output: Any = _residual(
            *((normalized.epsilon, branch), hidden, kernel, offset),
            *(scale, factors, images, norm),
        )
        return output
    output = pointwise(hidden, kernel, offset)
    if has_shortcut:
        output = _output(normalized) + output
    output = scale_channels(output, scale)
    if factors is not None:
        of_images = factors[:, branch].astype(images.dtype)
        output = output * of_images[:, None, None, None]
    return images + output


def _output(normalized: Normalized) -> Array:
    if normalized.output is None:
        return affine(normalized.images, *normalized[2:])
    return normalized.output


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalized(options, images, moments, scale, bias, kernel, offset):
    return _normalized_values(options, images, moments, scale, bias, kernel, offset)[0]


def _normalized_values(
    options, images, moments, scale, bias, kernel, offset, keeps_linear: bool = False
):
    epsilon, has_gelu = options
    mean, var = batch_moments(images) if moments is None else moments
    gain = scale * lax.rsqrt(var + epsilon)
    weights = Weights(kernel, gain=gain, shift=bias - mean * gain, bias=offset)
    results = product(
        *(Maps(images), weights),
        has_gelu=has_gelu,
        keeps_linear=keeps_linear and has_gelu,
    )
    linear = results[-1] if has_gelu else None
    outputs = results[0], images, mean, var
    return outputs, (images, moments, mean, var, scale, bias, kernel, offset, linear)


def _normalized_forward(options, *arguments):
    return _normalized_values(options, *arguments, keeps_linear=True)


def _normalized_backward(options, residuals, cotangents):
    """Return the gradients; moments of the batch have theirs from the images."""
    images, moments, mean, var, scale, bias, kernel, offset, linear = residuals
    cotangent, by_images, by_mean, by_var = cotangents
    sums = sum_type(images.dtype)
    if linear is not None:
        slope = gelu_slope(linear.astype(sums)) * cotangent.astype(sums)
        cotangent = slope.astype(images.dtype)
    totals = pixel_sums(Summed(images, cotangent), mean)
    total, by_offset = totals[:-1], totals[-1]
    inverse = lax.rsqrt(var + options[0])
    gain = scale * inverse
    by_kernel = gain[:, None] * total + bias[:, None] * by_offset[None]
    wide = kernel.astype(sums)
    by_bias = jnp.sum(wide * by_offset[None], axis=1)
    by_deviation = jnp.sum(wide * total, axis=1)
    by_mean = by_mean - gain * by_bias
    by_var = by_var - gain * jnp.square(inverse) * by_deviation / 2
    weights = Weights(kernel, result_gain=gain)
    maps = Maps(cotangent, shortcut=by_images)
    by_moments = by_mean, by_var
    if moments is None:
        count = images.size // images.shape[-1]
        slope = 2 * by_var / count
        by_moments = None
        maps = maps._replace(second=images)
        weights = weights._replace(slope=slope, bias=by_mean / count - slope * mean)
    (by_images,) = product(maps, weights, is_turned=True)
    gradients = by_moments, by_deviation * inverse, by_bias, by_kernel, by_offset
    arguments = moments, scale, bias, kernel, offset
    return by_images, *cast(gradients, arguments)


_normalized.defvjp(_normalized_forward, _normalized_backward)


def cast(gradients: Any, arguments: Any) -> Any:
    """Return gradients in the types of arguments; an argument that is None has none.

    Args:
      gradients: A tree.
      arguments: The same tree, of arguments.
    """
    return jax.tree.map(
        lambda argument, gradient: (
            None if argument is None else gradient.astype(argument.dtype)
        ),
        *(arguments, gradients),
        is_leaf=lambda argument: argument is None,
    )


@jax.custom_vjp
def _relu(images, kernel, offset):
    return product(Maps(images), Weights(kernel, bias=offset), has_relu=True)[0]


def _relu_forward(images, kernel, offset):
    output = _relu(images, kernel, offset)
    return output, (images, kernel, offset, output)


def _relu_backward(residuals, cotangent):
    images, kernel, offset, output = residuals
    cotangent = jnp.where(output > 0, cotangent, 0)
    totals = pixel_sums(Summed(images, cotangent))
    (by_images,) = product(Maps(cotangent), Weights(kernel), is_turned=True)
    return by_images, *cast((totals[:-1], totals[-1]), (kernel, offset))


_relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def _gated(images, kernel, offset, gate):
    maps, weights = Maps(images, gate=gate), Weights(kernel, bias=offset)
    return product(maps, weights)[0]


def _gated_forward(images, kernel, offset, gate):
    maps, weights = Maps(images, gate=gate), Weights(kernel, bias=offset)
    output, linear = product(maps, weights, keeps_linear=True)
    return output, (images, kernel, offset, gate, linear)


def _gated_backward(residuals, cotangent):
    images, kernel, offset, gate, linear = residuals
    totals = pixel_sums(Summed(images, cotangent, times=gate))
    maps = Maps(cotangent, times=gate)
    (by_images,) = product(maps, Weights(kernel), is_turned=True)
    weights = cast((totals[:-1], totals[-1]), (kernel, offset))
    return by_images, *weights, cotangent * linear


_gated.defvjp(_gated_forward, _gated_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _residual(options, hidden, kernel, offset, scale, factors, images, norm):
    epsilon, branch = options
    weights = Weights(kernel, bias=offset, scale=scale)
    maps = Maps(hidden, factors=factors)
    if norm is None:
        maps = maps._replace(shortcut=images)
    else:
        mean, var, norm_scale, norm_bias = norm
        gain = norm_scale * lax.rsqrt(var + epsilon)
        bias = offset + norm_bias - mean * gain
        weights = weights._replace(bias=bias, slope=gain)
        maps = maps._replace(second=images)
    adds_second = norm is not None
    return product(maps, weights, branch=branch, adds_second=adds_second)[0]


def _residual_forward(options, *arguments):
    return _residual(options, *arguments), arguments


def _residual_backward(options, arguments, cotangent):
    epsilon, branch = options
    hidden, kernel, offset, scale, factors, images, norm = arguments
    maps = Maps(cotangent, factors=factors)
    weights = Weights(kernel, gain=scale)
    (by_hidden,) = product(maps, weights, branch=branch, is_turned=True)
    summed = Summed(hidden, cotangent, factors=factors)
    if norm is not None:
        summed = summed._replace(beside=images)
    rows = hidden.shape[-1]
    totals = pixel_sums(summed, None, norm[0] if norm else None, branch)
    total, by_branch = totals[:rows], totals[rows]
    by_kernel, by_offset, by_scale = by_weights_of_branch(
        total, by_branch, kernel, offset, scale
    )
    by_images, by_norm = cotangent, None
    if norm is not None:
        mean, var, norm_scale, norm_bias = norm
        del mean
        inverse = lax.rsqrt(var + epsilon)
        gain, by_deviation = norm_scale * inverse, totals[rows + 1]
        by_scale += gain * by_deviation + norm_bias * by_branch
        by_norm = (
            -scale * gain * by_branch,
            -scale * gain * jnp.square(inverse) * by_deviation / 2,
            scale * inverse * by_deviation,
            scale * by_branch,
        )
        of_images = (scale * gain)[None]
        if factors is not None:
            of_images = factors[:, branch, None] * of_images
        wide = cotangent.astype(of_images.dtype)
        by_images = wide * (1 + of_images[:, None, None])
        by_images = by_images.astype(images.dtype)
    gradients = by_kernel, by_offset, by_scale, factors, by_norm
    by_weights = cast(gradients, (kernel, offset, scale, factors, norm))
    by_kernel, by_offset, by_scale, by_factors, by_norm = by_weights
    # `scaled_residual` stops the gradient by the factors.
    by_factors = jax.tree.map(jnp.zeros_like, by_factors)
    return by_hidden, by_kernel, by_offset, by_scale, by_factors, by_images, by_norm


_residual.defvjp(_residual_forward, _residual_backward)


def by_weights_of_branch(
    total: Array, by_branch: Array, kernel: Array, offset: Array, scale: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients by a branch's kernel, offset and scale.

    Args:
      total: Sums over pixels of the branch's maps times the gradient.
      by_branch: Sums of the gradient.
      kernel: See `scaled_residual`, as for the others.
      offset: See there.
      scale: See there.
    """
    by_scale = jnp.sum(kernel * total, axis=0) + offset * by_branch
    return scale[None] * total, scale * by_branch, by_scale
