"""The multi-scale part of MSCAN's attention: a 5x5 and three strip pairs, summed."""

import jax
from jaxtyping import Array, Float

from segnext_jax.ops import multi_scale_fused
from segnext_jax.ops.depthwise import (
    Implementation,
    depthwise_conv,
    pad,
    sum_images,
    windows_gradient,
    windows_sum,
)
from segnext_jax.ops.kernels.targets import TPU, has_planes_for
from segnext_jax.ops.multi_scale_composed import (
    Weights,
    multi_scale_composed,
    num_pairs,
)
from segnext_jax.ops.platforms import by_platform, has_kernels_for


def multi_scale(
    images: Float[Array, "batch height width channels"],
    weights: Weights,
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return ``d + sum_i column_i(row_i(d))`` with ``d = conv0(images)``.

    Args:
      images: Feature maps.
      weights: ``conv0`` (odd sizes), and ``conv{i}_1`` (1xk), ``conv{i}_2`` (kx1) for
        each strip pair i, any number of them, k odd.
      implementation: See `depthwise_conv`. ``"shifted"`` computes d once, and pads d
        once for all rows; XLA:CPU left to itself computes the 5x5 again in each of the
        four uses of d. The custom gradient keeps d alone. ``"auto"`` is the same, but
        on NVIDIA GPUs and TPUs it runs two kernels, and three for the gradient; see
        `multi_scale_fused`.

    Raises:
      ValueError: If the kernels have other shapes.

    Source: ``AttentionModule`` in ``mscan.py`` of SegNeXt@c87bcae; paper, equation 1.
    """
    multi_scale_fused.check(weights)
    if implementation == "auto" and has_kernels_for(images):
        return _by_platform(images, dict(weights))
    if implementation in ("auto", "shifted"):
        return _shared(images, weights)
    return multi_scale_composed(images, weights, implementation)


@jax.custom_vjp
def _by_platform(images: Array, weights: Weights) -> Array:
    return _values(images, weights)[0]


def _values(images: Array, weights: Weights):
    output, local = by_platform(
        *(images, weights),
        cuda=multi_scale_fused.values,
        tpu=_values_on_tpu,
        default=_shared_values,
    )
    return output, (images, local, weights)


def _gradients(residuals, cotangent: Array):
    return by_platform(
        *(*residuals, cotangent),
        cuda=multi_scale_fused.gradients,
        tpu=_gradients_on_tpu,
        default=_shared_gradients,
    )


_by_platform.defvjp(_values, _gradients)


def _values_on_tpu(images: Array, weights: Weights) -> tuple[Array, Array]:
    if not has_planes_for(images):
        return _shared_values(images, weights)
    return multi_scale_fused.values(images, weights, target=TPU)


def _gradients_on_tpu(
    images: Array, local: Array, weights: Weights, cotangent: Array
) -> tuple[Array, dict]:
    arguments = images, local, weights, cotangent
    if not has_planes_for(images):
        return _shared_gradients(*arguments)
    return multi_scale_fused.gradients(*arguments, target=TPU)


def _shared_values(images: Array, weights: Weights) -> tuple[Array, Array]:
    weights = dict(weights)
    with jax.named_scope("conv0"):
        local = depthwise_conv(images, *weights.pop("conv0"))
    with jax.named_scope("strips"):
        return _add_strips(local, weights), local


def _shared_gradients(
    images: Array, local: Array, weights: Weights, cotangent: Array
) -> tuple[Array, dict]:
    strips = {name: pair for name, pair in weights.items() if name != "conv0"}
    by_local, by_strips = _backward((local, strips), cotangent)
    pull = jax.vjp(depthwise_conv, images, *weights["conv0"])[1]
    by_images, *by_square = pull(by_local)
    return by_images, {**by_strips, "conv0": tuple(by_square)}


def _shared(images: Array, weights: Weights) -> Array:
    return _shared_values(images, weights)[0]


@jax.jit
@jax.custom_vjp
def _add_strips(local: Array, weights: Weights) -> Array:
    """Return ``d + sum_i column_i(row_i(d))``, d padded once for all rows."""
    size = local.shape[1:3]
    padded = pad(local, 0, _longest(weights))
    total = local
    for index in range(num_pairs(weights)):
        row = _strip(padded, *weights[f"conv{index}_1"], size)
        total = total + depthwise_conv(row, *weights[f"conv{index}_2"])
    return total


@jax.jit
def _forward(local: Array, weights: Weights):
    return _add_strips(local, weights), (local, weights)


@jax.jit
def _backward(residuals: tuple[Array, Weights], cotangent: Array):
    """Return the gradients; the sum is linear in d.

    Pair i adds ``row_i^T(column_i^T(g))`` to the gradient of d. As in the forward pass,
    g is padded once for all columns. The results of the rows are computed again.
    """
    local, weights = residuals
    size = local.shape[1:3]
    border = _longest(weights)
    padded_local = pad(local, 0, border)
    padded_cotangent = pad(cotangent, border, 0)
    bias_gradient = sum_images(cotangent)
    local_gradient = cotangent
    gradients = {}
    for index in range(num_pairs(weights)):
        names = f"conv{index}_1", f"conv{index}_2"
        (row_kernel, row_bias), (column_kernel, column_bias) = (
            weights[name] for name in names
        )
        row = _strip(padded_local, row_kernel, row_bias, size)
        column_window = _window(padded_cotangent, column_kernel, size)
        # The kernel's gradient is that of the turned kernel, because the kernel slides
        # over the padded cotangent.
        column_gradient = windows_gradient(column_window, row, column_kernel.shape)
        turned = column_kernel[::-1, ::-1].astype(local.dtype)
        row_cotangent = windows_sum(column_window, turned, size)
        row_gradient = windows_gradient(
            _window(padded_local, row_kernel, size), row_cotangent, row_kernel.shape
        )
        gradients[names[0]] = row_gradient, sum_images(row_cotangent)
        gradients[names[1]] = column_gradient[::-1, ::-1], bias_gradient
        local_gradient = local_gradient + depthwise_conv(
            row_cotangent, row_kernel[::-1, ::-1]
        )
    gradients = jax.tree.map(lambda g, w: g.astype(w.dtype), gradients, dict(weights))
    return local_gradient, gradients


# The type of what jit returns does not have it.
_add_strips.__wrapped__.defvjp(  # pyright: ignore[reportAttributeAccessIssue]
    _forward, _backward
)


def _longest(weights: Weights) -> int:
    """Return the padding of the longest strip."""
    return max(max(kernel.shape[:2]) for kernel, _ in weights.values()) // 2


def _strip(padded: Array, kernel: Array, bias: Array, size: tuple) -> Array:
    window = _window(padded, kernel, size)
    row = windows_sum(window, kernel.astype(padded.dtype), size)
    return row + bias.astype(padded.dtype)[None, None, None]


def _window(padded: Array, kernel: Array, size: tuple) -> Array:
    """Return the part of a padding for the longest strip that a strip slides over."""
    top = (padded.shape[1] - size[0]) // 2
    left = (padded.shape[2] - size[1]) // 2
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    return padded[
        :,
        top - rows : top + size[0] + rows,
        left - columns : left + size[1] + columns,
    ]
