"""SegNeXt: MSCAN encoder and light Hamburger decoder, in four published variants."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.models.hamburger import LightHamHead, fixed_bases
from segnext_jax.models.mscan import MSCAN
from segnext_jax.ops import depthwise


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes of one network.

    Attributes:
      embed_dims: Channels of the four stages.
      depths: Blocks of the four stages.
      mlp_ratios: Hidden channels over channels in the MLPs of the four stages.
      drop_path_rate: Stochastic depth of the last block.
      head_channels: Width of the decoder.
      rank: Number of NMF bases.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratios: tuple[int | float, ...]
    drop_path_rate: float
    head_channels: int
    rank: int


# Source: paper table 2 and local_configs/segnext/*/*.py of SegNeXt@c87bcae.
VARIANTS = {
    "tiny": Variant((32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "small": Variant((64, 128, 320, 512), (2, 2, 4, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "base": Variant((64, 128, 320, 512), (3, 3, 12, 3), (8, 8, 4, 4), 0.1, 512, 64),
    "large": Variant((64, 128, 320, 512), (3, 5, 27, 3), (8, 8, 4, 4), 0.3, 1024, 64),
}


class SegNeXt(nn.Module):
    """Images to class scores at 1/8 of their size.

    Attributes:
      variant: Sizes of the network, one of `VARIANTS` or your own.
      num_classes: Number of train ids.
      dropout_rate: Channel dropout before the classifier.
      nmf_train_steps: Steps of the decomposition in training.
      nmf_eval_steps: The same at inference.
      nmf_eval_bases: Starting bases at inference: ``"fixed"`` by ``nmf_eval_seed``, or
        ``"random"`` from the rng ``nmf``.
      nmf_eval_seed: Seed of the fixed bases.
      decomposition: ``"nmf"``, ``"vq"`` or ``"cd"``; the published networks have NMF.
      nmf_gradient: ``"full"`` or ``"one_step"``.
      frozen_stages: See `MSCAN`, as for the next two.
      freeze_batch_norm: Keep all running statistics in training.
      remat: Compute blocks again in the backward pass.
      depthwise_implementation: See `segnext_jax.ops.depthwise.depthwise_conv`.
      resize_first: See `segnext_jax.models.hamburger.Squeeze`.
      dtype: Type of activations; losses, statistics and NMF stay float32.
      param_dtype: Type of parameters.

    Source: Guo et al., "SegNeXt: Rethinking convolutional attention design for
    semantic segmentation", NeurIPS 2022; ``EncoderDecoder`` with ``MSCAN`` and
    ``LightHamHead`` of SegNeXt@c87bcae.
    """

    variant: Variant
    num_classes: int
    dropout_rate: float = 0.1
    nmf_train_steps: int = 6
    nmf_eval_steps: int = 7
    nmf_eval_bases: str = "fixed"
    nmf_eval_seed: int = 0
    decomposition: str = "nmf"
    nmf_gradient: str = "full"
    frozen_stages: int = 0
    freeze_batch_norm: bool = False
    remat: bool = False
    depthwise_implementation: depthwise.Implementation = "auto"
    resize_first: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @classmethod
    def from_config(cls, config: Any, num_classes: int) -> "SegNeXt":
        """Return the network that the ``model`` section of a configuration names.

        Args:
          config: ``segnext_jax.config.base_config().model``.
          num_classes: Number of train ids.

        Raises:
          ValueError: If there is no such variant.
        """
        if config.variant not in VARIANTS:
            raise ValueError(
                f"config.model.variant must be one of {', '.join(VARIANTS)}: got "
                f"{config.variant!r}."
            )
        sizes = [field.name for field in dataclasses.fields(Variant)]
        given = {name: config[name] for name in sizes if config[name] is not None}
        return cls(
            variant=dataclasses.replace(VARIANTS[config.variant], **given),
            num_classes=num_classes,
            dropout_rate=config.dropout_rate,
            nmf_train_steps=config.nmf_train_steps,
            nmf_eval_steps=config.nmf_eval_steps,
            nmf_eval_bases=config.nmf_eval_bases,
            nmf_eval_seed=config.nmf_eval_seed,
            decomposition=config.decomposition,
            nmf_gradient=config.nmf_gradient,
            frozen_stages=config.frozen_stages,
            freeze_batch_norm=config.freeze_batch_norm,
            remat=config.remat,
            depthwise_implementation=config.depthwise,
            dtype=jnp.dtype(config.dtype),
        )

    def fixed_bases(self, seed: int) -> Float[Array, "1 channels rank"]:
        """Return the bases of ``nmf_eval_bases="fixed"`` with a seed, for one image."""
        variant = self.variant
        channels, rank = variant.head_channels, variant.rank
        return fixed_bases(self.decomposition, seed, channels, rank)

    def setup(self):
        """Create the two halves."""
        variant = self.variant
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.backbone = MSCAN(
            embed_dims=variant.embed_dims,
            depths=variant.depths,
            mlp_ratios=variant.mlp_ratios,
            drop_path_rate=variant.drop_path_rate,
            frozen_stages=self.frozen_stages,
            freeze_batch_norm=self.freeze_batch_norm,
            remat=self.remat,
            depthwise_implementation=self.depthwise_implementation,
            **types,
        )
        self.decode_head = LightHamHead(
            num_classes=self.num_classes,
            channels=variant.head_channels,
            rank=variant.rank,
            train_steps=self.nmf_train_steps,
            eval_steps=self.nmf_eval_steps,
            eval_bases=self.nmf_eval_bases,
            eval_seed=self.nmf_eval_seed,
            decomposition=self.decomposition,
            gradient=self.nmf_gradient,
            dropout_rate=self.dropout_rate,
            resize_first=self.resize_first,
            **types,
        )

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        bases: Float[Array, "batch channels rank"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch small_height small_width classes"]:
        """Return logits at 1/8 of the image's size, rounded up.

        Args:
          images: Normalised RGB, any height and width.
          bases: Starting bases of the decomposition. None: drawn from the rng ``nmf``
            in training, by ``nmf_eval_bases`` at inference.
          train: Batch statistics, dropout and drop path; needs the rngs ``dropout``,
            ``drop_path`` and ``nmf`` (the last unless ``bases`` are given).
        """
        return self.decode_head(self.backbone(images, train), bases, train)
