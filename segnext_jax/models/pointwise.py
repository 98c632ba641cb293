"""The 1x1 convolution as a module."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.models.initialization import fan_out_normal
from segnext_jax.ops.pointwise import pointwise


class Pointwise(nn.Module):
    """1x1 convolution: a dense layer over channels, with the names of `nn.Dense`.

    Attributes:
      features: Number of channels that come out.
      use_bias: Whether to add a bias.
      kernel_init: Draws the kernel.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable = fan_out_normal
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width features"]:
        """Return maps of ``features`` channels, in ``dtype``."""
        shape = (images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, shape[1:], self.param_dtype)
        return pointwise(images.astype(self.dtype), kernel, bias)
