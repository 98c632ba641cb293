"""The multi-scale part of MSCAN's attention: a 5x5 and three strip pairs, summed."""

from collections.abc import Mapping

import jax
from jaxtyping import Array, Float

from segnext_jax.ops.depthwise import Implementation, depthwise_conv, pad, windows_sum
from segnext_jax.ops.multi_scale_pallas import multi_scale_fused

# Kernel [height, width, channels] and bias [channels] by the name of the convolution.
Weights = Mapping[str, tuple[Array, Array]]


def multi_scale(
    images: Float[Array, "batch height width channels"],
    weights: Weights,
    *,
    implementation: Implementation = "shifted",
) -> Float[Array, "batch height width channels"]:
    """Return ``d + sum_i column_i(row_i(d))`` with ``d = conv0(images)``.

    Args:
      images: Feature maps.
      weights: ``conv0`` (5x5), and ``conv{i}_1`` (1xk), ``conv{i}_2`` (kx1) for each
        strip pair i.
      implementation: See `depthwise_conv`. Where nothing is differentiated,
        ``"shifted"`` computes d once and pads it once for all rows: left to itself,
        XLA:CPU computes the 5x5 again in each of its four uses. ``"pallas"`` is one
        kernel for NVIDIA GPUs: see `multi_scale_fused`.

    Source: ``AttentionModule`` in ``mscan.py`` of SegNeXt@c87bcae; paper, equation 1.
    """
    if implementation == "shifted":
        return _shared(images, weights)
    if implementation == "pallas":
        return multi_scale_fused(images, weights)
    return _composed(images, weights, implementation)


def _composed(images: Array, weights: Weights, implementation: Implementation) -> Array:
    def convolve(images: Array, name: str) -> Array:
        # The name is that of the module which owns the weights.
        with jax.named_scope(name):
            kernel, bias = weights[name]
            return depthwise_conv(images, kernel, bias, implementation=implementation)

    local = convolve(images, "conv0")
    total = local
    for index in range(_num_pairs(weights)):
        row = convolve(local, f"conv{index}_1")
        total = total + convolve(row, f"conv{index}_2")
    return total


def _num_pairs(weights: Weights) -> int:
    return (len(weights) - 1) // 2


@jax.custom_vjp
def _shared(images: Array, weights: Weights) -> Array:
    local = depthwise_conv(images, *weights["conv0"])
    width = images.shape[2]
    pairs = range(_num_pairs(weights))
    border = max(weights[f"conv{index}_1"][0].shape[1] for index in pairs) // 2
    padded = pad(local, 0, border)
    total = padded[:, :, border : border + width]
    for index in pairs:
        kernel, bias = weights[f"conv{index}_1"]
        less = border - kernel.shape[1] // 2
        window = padded[:, :, less : padded.shape[2] - less]
        row = windows_sum(window, kernel.astype(images.dtype))
        row = row + bias.astype(images.dtype)[None, None, None]
        total = total + depthwise_conv(row, *weights[f"conv{index}_2"])
    return total


def _shared_forward(images: Array, weights: Weights):
    return jax.vjp(lambda *a: _composed(*a, "shifted"), images, dict(weights))


def _shared_backward(pull, cotangent: Array):
    return pull(cotangent)


_shared.defvjp(_shared_forward, _shared_backward)
