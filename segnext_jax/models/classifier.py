"""The encoder with a linear head: ImageNet classification."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import SegNeXt, find_variant
from segnext_jax.ops import depthwise


class MSCANClassifier(nn.Module):
    """Images to class scores: `MSCAN`, mean over positions, linear layer ``head``.

    Attributes:
      variant: As for `SegNeXt`; the sizes of the decoder are not used.
      num_classes: Number of classes, 1000 for ImageNet-1K.
      frozen_stages: See `MSCAN`, as for the next two.
      freeze_batch_norm: Keep all running statistics in training.
      remat: Compute blocks again in the backward pass.
      dtype: Type of activations.
      param_dtype: Type of parameters.

    Source: the encoder's ImageNet checkpoints carry ``head.weight`` [classes, channels]
    and ``head.bias``; the code of the head was not published. This is that of VAN,
    which the encoder follows: the normalised last stage, its mean, a linear layer.
    """

    variant: Any
    num_classes: int = 1000
    depthwise_implementation: depthwise.Implementation = "auto"
    frozen_stages: int = 0
    freeze_batch_norm: bool = False
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @classmethod
    def from_config(cls, config: Any, num_classes: int) -> "MSCANClassifier":
        """Return the classifier of the encoder that ``config.model`` names.

        Args:
          config: ``segnext_jax.config.base_config().model``.
          num_classes: Number of classes.

        Raises:
          ValueError: If there is no such variant.
        """
        network = SegNeXt.from_config(config, num_classes)
        return cls(
            variant=network.variant,
            num_classes=num_classes,
            depthwise_implementation=network.depthwise_implementation,
            frozen_stages=network.frozen_stages,
            freeze_batch_norm=network.freeze_batch_norm,
            remat=network.remat,
            dtype=network.dtype,
        )

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
            **find_variant(self.variant).encoder_sizes(),
            depthwise_implementation=self.depthwise_implementation,
            frozen_stages=self.frozen_stages,
            freeze_batch_norm=self.freeze_batch_norm,
            remat=self.remat,
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
