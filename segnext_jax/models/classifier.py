"""The encoder with a linear head: ImageNet classification."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import Variant
from segnext_jax.ops import depthwise


class MSCANClassifier(nn.Module):
    """Images to class scores: `MSCAN`, mean over positions, linear layer ``head``.

    Attributes:
      variant: Sizes of the network; those of the decoder are not used.
      num_classes: Number of classes, 1000 for ImageNet-1K.
      dtype: Type of activations.
      param_dtype: Type of parameters.

    Source: the encoder's ImageNet checkpoints carry ``head.weight`` [classes, channels]
    and ``head.bias``; the code of the head was not published. This is that of VAN,
    which the encoder follows: the normalised last stage, its mean, a linear layer.
    """

    variant: Variant
    num_classes: int = 1000
    depthwise_implementation: depthwise.Implementation = "shifted"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Return one row of logits per image.

        Args:
          images: Normalised RGB, any height and width.
          train: Batch statistics and drop paths (needs the rng ``drop_path``).
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        features = MSCAN(
            embed_dims=self.variant.embed_dims,
            depths=self.variant.depths,
            mlp_ratios=self.variant.mlp_ratios,
            drop_path_rate=self.variant.drop_path_rate,
            depthwise_implementation=self.depthwise_implementation,
            name="backbone",
            **types,
        )(images, train)[-1]
        # fp32: a mean over all positions.
        working = jnp.promote_types(self.dtype, jnp.float32)
        pooled = jnp.mean(features.astype(working), axis=(1, 2)).astype(self.dtype)
        return nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.truncated_normal(0.02),
            bias_init=nn.initializers.zeros,
            name="head",
            **types,
        )(pooled)
