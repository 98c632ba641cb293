"""SegNeXt: MSCAN encoder and light Hamburger decoder, in four published variants."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

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

    def encoder_sizes(self) -> dict[str, Any]:
        """Return the arguments of `MSCAN` that follow from the sizes."""
        names = ("embed_dims", "depths", "mlp_ratios", "drop_path_rate")
        return {name: getattr(self, name) for name in names}


# Source: paper table 2 and local_configs/segnext/*/*.py of SegNeXt@c87bcae.
VARIANTS = {
    "tiny": Variant((32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "small": Variant((64, 128, 320, 512), (2, 2, 4, 2), (8, 8, 4, 4), 0.1, 256, 16),
    "base": Variant((64, 128, 320, 512), (3, 3, 12, 3), (8, 8, 4, 4), 0.1, 512, 64),
    "large": Variant((64, 128, 320, 512), (3, 5, 27, 3), (8, 8, 4, 4), 0.3, 1024, 64),
}


def find_variant(variant: Variant | str) -> Variant:
    """Return the sizes of a network that is given by name or by its sizes.

    Raises:
      ValueError: If no variant has this name.
    """
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        raise ValueError(
            f"variant must be one of {', '.join(VARIANTS)}, or a Variant of your own "
            f"sizes: got {variant!r}."
        )
    return VARIANTS[variant]


class SegNeXt(nn.Module):
    """Images to class scores at 1/8 of their size.

    Attributes:
      variant: Sizes of the network: a name of `VARIANTS`, or a `Variant` of your own.
      num_classes: Number of train ids; 150 are those of ADE20K.
      dropout_rate: Channel dropout before the classifier.
      nmf_train_steps: Steps of the NMF in training.
      nmf_eval_steps: The same at inference.
      nmf_eval_bases: Starting bases at inference: ``"fixed"`` by ``nmf_eval_seed``, or
        ``"random"`` from the rng ``nmf``.
      nmf_eval_seed: Seed of the fixed bases.
      nmf_gradient: ``"full"`` or ``"one_step"``.
      frozen_stages: See `MSCAN`, as for the next two.
      freeze_batch_norm: Keep all running statistics in training.
      remat: Compute blocks again in the backward pass.
      depthwise_implementation: See `segnext_jax.ops.depthwise.depthwise_conv`.
      official_order: See `segnext_jax.models.hamburger.LightHamHead`.
      dtype: Type of activations; losses, statistics and NMF stay float32.
      param_dtype: Type of parameters.

    Source: Guo et al., "SegNeXt: Rethinking convolutional attention design for
    semantic segmentation", NeurIPS 2022; ``EncoderDecoder`` with ``MSCAN`` and
    ``LightHamHead`` of SegNeXt@c87bcae.
    """

    variant: Any
    num_classes: int = 150
    dropout_rate: float = 0.1
    nmf_train_steps: int = 6
    nmf_eval_steps: int = 7
    nmf_eval_bases: str = "fixed"
    nmf_eval_seed: int = 0
    nmf_gradient: str = "full"
    frozen_stages: int = 0
    freeze_batch_norm: bool = False
    remat: bool = False
    depthwise_implementation: depthwise.Implementation = "auto"
    official_order: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Look up a variant that is given by name.

        Raises:
          ValueError: If there is no such variant.
        """
        # Modules are frozen.
        object.__setattr__(self, "variant", find_variant(self.variant))
        super().__post_init__()

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
            nmf_gradient=config.nmf_gradient,
            frozen_stages=config.frozen_stages,
            freeze_batch_norm=config.freeze_batch_norm,
            remat=config.remat,
            depthwise_implementation=config.depthwise,
            dtype=jnp.dtype(config.dtype),
        )

    def draws(self, count: int = 1) -> dict[int, Any]:
        """Return the starting bases of the decoder at inference, by seed.

        `__call__` takes one draw, which serves the whole evaluation. Evaluations with
        several draws tell how much the numbers depend on the draw.

        Args:
          count: Number of draws, for ``nmf_eval_seed`` and the seeds after it.

        Returns:
          Bases by seed. With ``nmf_eval_bases="random"``: None for the only seed, since
          each image has a draw of its own.
        """
        if self.nmf_eval_bases == "random":
            return {self.nmf_eval_seed: None}
        variant = self.variant
        sizes = variant.head_channels, variant.rank
        return {
            seed: fixed_bases(seed, *sizes)
            for seed in range(self.nmf_eval_seed, self.nmf_eval_seed + count)
        }

    def deterministic(self) -> "SegNeXt":
        """Return the same network without random draws at inference."""
        return self.clone(nmf_eval_bases="fixed", dropout_rate=0.0)

    @staticmethod
    def inference_rngs(key: PRNGKeyArray) -> dict[str, PRNGKeyArray]:
        """Return the rngs of a call without ``train``, for ``draw`` None."""
        return {"nmf": key}

    def setup(self):
        """Create the two halves."""
        variant = self.variant
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.backbone = MSCAN(
            **variant.encoder_sizes(),
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
            gradient=self.nmf_gradient,
            dropout_rate=self.dropout_rate,
            official_order=self.official_order,
            **types,
        )

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        draw: Float[Array, "#batch channels rank"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch small_height small_width classes"]:
        """Return logits at 1/8 of the image's size, rounded up.

        Args:
          images: Normalised RGB, any height and width.
          draw: What the decoder starts from: bases of each image, or of all as `draws`
            gives them. None: drawn from the rng ``nmf`` in training, by
            ``nmf_eval_bases`` at inference.
          train: Batch statistics, dropout and drop path; needs the rngs ``dropout``,
            ``drop_path`` and ``nmf`` (the last unless ``draw`` is given).
        """
        return self.decode_head(self.backbone(images, train), draw, train)
