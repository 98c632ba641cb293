"""The 1x1 convolution as modules."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from segnext_jax.models.initialization import fan_out_normal
from segnext_jax.ops.joined_pointwise import relu_pointwise
from segnext_jax.ops.pointwise import pointwise


class Pointwise(nn.Module):
    """1x1 convolution: a dense layer over channels, with the names of `nn.Dense`.

    Attributes:
      features: Number of channels that come out.
      use_bias: Whether to add a bias.
      has_relu: Whether a ReLU comes last, behind a bias.
      kernel_init: Draws the kernel.
    """

    features: int
    use_bias: bool = True
    has_relu: bool = False
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
        images = images.astype(self.dtype)
        if self.has_relu and bias is not None:
            return relu_pointwise(images, kernel, bias)
        return pointwise(images, kernel, bias)


class JoinedPointwise(nn.Module):
    """1x1 convolution of joined maps, given apart: no bias, the sum is the caller's.

    Attributes:
      features: Number of channels that come out.
    """

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, maps: list[Float[Array, "batch _ _ _"]]
    ) -> list[Float[Array, "batch _ _ features"]]:
        """Return what each map gives, at its own size.

        Args:
          maps: Feature maps of any sizes; their channels in this order are the kernel's
            rows.
        """
        ends = np.cumsum([m.shape[-1] for m in maps])
        shape = (int(ends[-1]), self.features)
        kernel = self.param("kernel", fan_out_normal, shape, self.param_dtype)
        parts = jnp.split(kernel, ends[:-1])
        return [
            pointwise(images.astype(self.dtype), part)
            for images, part in zip(maps, parts, strict=True)
        ]
