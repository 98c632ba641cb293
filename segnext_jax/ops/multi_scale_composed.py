"""The multi-scale attention, one convolution after another."""

from collections.abc import Mapping

import jax
from jaxtyping import Array, Float

from segnext_jax.ops.depthwise import Implementation, depthwise_conv

# Kernel [height, width, channels] and bias [channels] by the name of the convolution.
Weights = Mapping[str, tuple[Array, Array]]


def num_pairs(weights: Weights) -> int:
    """Return the number of strip pairs, with or without the square beside them."""
    return len(weights) // 2


def multi_scale_composed(
    images: Float[Array, "batch height width channels"],
    weights: Weights,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return what `segnext_jax.ops.multi_scale.multi_scale` does, left to the compiler.

    Args:
      images: See `multi_scale`, as for the others.
      weights: Kernels and biases of the square convolution and of the strip pairs.
      implementation: How each convolution is computed; see
        `segnext_jax.ops.depthwise.depthwise_conv`.
    """

    def convolve(images: Array, name: str) -> Array:
        # The name is that of the module which owns the weights.
        with jax.named_scope(name):
            kernel, bias = weights[name]
            return depthwise_conv(images, kernel, bias, implementation=implementation)

    local = convolve(images, "conv0")
    total = local
    for index in range(num_pairs(weights)):
        row = convolve(local, f"conv{index}_1")
        total = total + convolve(row, f"conv{index}_2")
    return total
