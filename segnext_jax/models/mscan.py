"""MSCAN: the Multi-Scale Convolutional Attention Network, SegNeXt's encoder."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from segnext_jax.models.initialization import LAYER_SCALE, fan_out_normal
from segnext_jax.models.normalization import BatchNorm, LayerNorm
from segnext_jax.ops import depthwise
from segnext_jax.ops.batch_norm import Normalized
from segnext_jax.ops.depthwise_gelu import depthwise_gelu_residual
from segnext_jax.ops.drop_path import drop_path_factors
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.joined_pointwise import (
    gated_pointwise,
    normalized_pointwise,
    scaled_residual,
)
from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.stride_two import stride_two_conv

# Lengths of the strip pairs 1xk, kx1 beside the 5x5 kernel (paper, figure 2c).
STRIP_LENGTHS = (7, 11, 21)


class _Layer(nn.Module):
    """The fields that every layer of the encoder shares."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    depthwise_implementation: depthwise.Implementation = "auto"
    freeze_batch_norm: bool = False

    def _types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def _same(self) -> dict[str, Any]:
        return {
            **self._types(),
            "depthwise_implementation": self.depthwise_implementation,
            "freeze_batch_norm": self.freeze_batch_norm,
        }

    def _stride_two(self, features: int, name: str) -> "StrideTwo":
        return StrideTwo(features, name=name, **self._types())

    def _weights(self, shape: tuple[int, ...], name: str) -> tuple[Array, Array]:
        return ConvWeights(shape, self.param_dtype, name=name)()

    def _batch_norm(self, name: str) -> BatchNorm:
        return BatchNorm(name=name, is_frozen=self.freeze_batch_norm, **self._types())

    def _normalized_pointwise(
        self, branch: "Branch", kernel: Array, name: str, **options: Any
    ) -> tuple[Array, Normalized]:
        then = functools.partial(
            normalized_pointwise,
            kernel=kernel,
            implementation=self.depthwise_implementation,
            **options,
        )
        with jax.named_scope(name):
            return branch.norm(branch.images, branch.train, then)


class ConvWeights(nn.Module):
    """Kernel and bias of a convolution.

    Attributes:
      shape: Of the kernel; the last dimension is that of the results' channels.
    """

    shape: tuple[int, ...]
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> tuple[Array, Float[Array, " channels"]]:
        """Return kernel and bias."""
        shape = self.shape
        return (
            self.param("kernel", fan_out_normal, shape, self.param_dtype),
            self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype),
        )


class StrideTwo(nn.Module):
    """3x3 convolution of stride 2, with the names of `nn.Conv`."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        """Return maps of half the size, rounded up."""
        shape = (3, 3, images.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal, shape, self.param_dtype)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, shape[3:], self.param_dtype)
        return stride_two_conv(images.astype(self.dtype), kernel, bias)


class SpatialGatingUnit(_Layer):
    """Multi-scale convolutional attention: the input times a filtered view of itself.

    ``attention = conv1x1(d + sum_k strip_k(d))``, ``d = conv5x5(x)``, with strip pairs
    of 7, 11 and 21; the result is ``attention * x``.

    Source: paper section 3.1, equations 1 and 2; ``AttentionModule`` in ``mscan.py``
    of SegNeXt@c87bcae.
    """

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return the gated images."""
        channels = images.shape[-1]
        weights = {"conv0": self._weights((5, 5, channels), "conv0")}
        for index, length in enumerate(STRIP_LENGTHS):
            for half, size in ((1, (1, length)), (2, (length, 1))):
                name = f"conv{index}_{half}"
                weights[name] = self._weights((*size, channels), name)
        attention = multi_scale(
            images, weights, implementation=self.depthwise_implementation
        )
        weights = self._weights((channels, channels), "conv3")
        with jax.named_scope("conv3"):
            return gated_pointwise(
                *(attention, *weights, images, self.depthwise_implementation)
            )


class Branch(NamedTuple):
    """What a block's branch is given.

    Attributes:
      images: Feature maps.
      train: Use batch statistics.
      norm: Normalises the images.
      scale: Of each channel of the branch.
      factors: Of all branches of each image, in training; None: 1.
      number: Which of them this is.
    """

    images: Float[Array, "batch height width channels"]
    train: bool
    norm: BatchNorm
    scale: Float[Array, " channels"]
    factors: Float[Array, "batch branches"] | None
    number: int


class Attention(_Layer):
    """1x1, GELU, spatial gating, 1x1, with a shortcut around all of it.

    Source: ``SpatialAttention`` in ``mscan.py`` of SegNeXt@c87bcae.
    """

    @nn.compact
    def __call__(self, branch: Branch) -> Float[Array, "batch height width channels"]:
        """Return the images plus this branch of them."""
        channels = branch.images.shape[-1]
        first, last = (
            self._weights((channels, channels), name) for name in ("proj_1", "proj_2")
        )
        hidden, normalized = self._normalized_pointwise(
            branch, first[0], "proj_1", offset=first[1], has_gelu=True
        )
        hidden = SpatialGatingUnit(name="spatial_gating_unit", **self._same())(hidden)
        with jax.named_scope("proj_2"):
            return scaled_residual(
                *(hidden, *last, branch.scale, branch.factors, normalized),
                branch=branch.number,
                has_shortcut=True,
                implementation=self.depthwise_implementation,
            )


class ConvMLP(_Layer):
    """1x1 to ``hidden_channels``, depthwise 3x3, GELU, 1x1 back.

    Source: ``Mlp`` in ``mscan.py`` of SegNeXt@c87bcae (its dropout rate is 0).
    """

    hidden_channels: int = 0

    @nn.compact
    def __call__(self, branch: Branch) -> Float[Array, "batch height width channels"]:
        """Return the images plus this branch of them."""
        channels, wide = branch.images.shape[-1], self.hidden_channels
        first, first_bias = self._weights((channels, wide), "fc1")
        hidden, normalized = self._normalized_pointwise(branch, first, "fc1")
        kernel, bias = self._weights((3, 3, wide), "dwconv")
        last = self._weights((wide, channels), "fc2")
        with jax.named_scope("dwconv_fc2"):
            return depthwise_gelu_residual(
                *(hidden, kernel, bias, first_bias, last),
                *(branch.scale, branch.factors, normalized),
                branch=branch.number,
                implementation=self.depthwise_implementation,
            )


class Block(_Layer):
    """Attention and MLP, each normalised, scaled per channel, and stochastically cut.

    Source: paper figure 2a; ``Block`` in ``mscan.py`` of SegNeXt@c87bcae.
    """

    mlp_ratio: int | float = 4.0
    first_branch: int = 0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        train: bool,
        factors: Float[Array, "batch branches"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Return images of the same shape.

        Args:
          images: Feature maps.
          train: Use batch statistics.
          factors: On all branches of each image, in training; None: 1.
        """
        channels = images.shape[-1]
        hidden = int(channels * self.mlp_ratio)
        parts = (
            Attention(name="attn", **self._same()),
            ConvMLP(hidden_channels=hidden, name="mlp", **self._same()),
        )
        initializer = nn.initializers.constant(LAYER_SCALE)
        for index, part in enumerate(parts):
            norm = self._batch_norm(f"norm{index + 1}")
            name = f"layer_scale_{index + 1}"
            scale = self.param(name, initializer, (channels,), self.param_dtype)
            number = self.first_branch + index
            images = part(Branch(images, train, norm, scale, factors, number))
        return images


class Stem(_Layer):
    """Two 3x3 convolutions of stride 2: an image to 1/4 of its size.

    Submodules bear their index in the official ``nn.Sequential``; 2 is the GELU.

    Source: ``StemConv`` in ``mscan.py`` of SegNeXt@c87bcae.
    """

    features: int = 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch new_height new_width features"]:
        """Return maps of ``features`` channels at a quarter of the size, rounded up."""
        images = self._stride_two(self.features // 2, "proj_0")(images)
        images = self._batch_norm("proj_1")(images, train)
        images = gelu(images)
        images = self._stride_two(self.features, "proj_3")(images)
        return self._batch_norm("proj_4")(images, train)


class Downsample(_Layer):
    """A 3x3 convolution of stride 2 between two stages.

    Source: ``OverlapPatchEmbed`` in ``mscan.py`` of SegNeXt@c87bcae.
    """

    features: int = 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch new_height new_width features"]:
        """Return maps of ``features`` channels at half the size, rounded up."""
        images = self._stride_two(self.features, "proj")(images)
        return self._batch_norm("norm")(images, train)


class MSCAN(_Layer):
    """Encoder of four stages, at 1/4, 1/8, 1/16 and 1/32 of the image.

    The output of a stage passes a LayerNorm over channels, and the normalised map
    feeds both the decoder and the next stage.

    Attributes:
      embed_dims: Channels of each stage.
      depths: Blocks of each stage.
      mlp_ratios: Hidden channels of each stage's MLP over its channels.
      drop_path_rate: Probability to skip a branch of the last block. The probability
        falls linearly to 0 at the first block.
      frozen_stages: Number of first stages that run in training as at inference: their
        BatchNorms use and keep the running statistics, and no path is dropped. The
        optimizer decides whether the parameters of these stages are trained.
      freeze_batch_norm: The BatchNorms of all stages use and keep their running
        statistics in training.
      remat: Keep only the input of each block for the backward pass, which computes the
        block again: less memory, a third more time. On CPUs XLA merges the two
        computations of a block, and no memory is saved.

    Source: paper section 3.1 and table 2; ``MSCAN`` in
    ``mmseg/models/backbones/mscan.py`` of SegNeXt@c87bcae.
    """

    embed_dims: Sequence[int] = (32, 64, 160, 256)
    depths: Sequence[int] = (3, 3, 5, 2)
    mlp_ratios: Sequence[int | float] = (8, 8, 4, 4)
    drop_path_rate: float = 0.1
    frozen_stages: int = 0
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], train: bool = False
    ) -> list[Float[Array, "batch _ _ _"]]:
        """Return the normalised outputs of the four stages.

        Args:
          images: Normalised RGB; any height and width.
          train: Use batch statistics and drop paths (needs the rng ``drop_path``).

        Raises:
          ValueError: If the images have other dimensions.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                "images must be [batch, height, width, 3], normalised RGB: got "
                f"{images.shape}. Add the batch to a single image: image[None]."
            )
        factors = None
        if train and self.drop_path_rate > 0:
            rates = np.repeat(np.linspace(0, self.drop_path_rate, sum(self.depths)), 2)
            key = self.make_rng("drop_path")
            factors = drop_path_factors(rates.tolist(), len(images), key).T
        branch = 0
        images = images.astype(self.dtype)
        # Argument 2 of (self, images, train, factors), ``train``, is no array.
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        outputs = []
        stages = zip(self.embed_dims, self.depths, self.mlp_ratios, strict=True)
        for stage, (features, depth, mlp_ratio) in enumerate(stages, start=1):
            embed = Stem if stage == 1 else Downsample
            train_stage = train and stage > self.frozen_stages
            images = embed(
                features=features, name=f"patch_embed{stage}", **self._same()
            )(images, train_stage)
            for index in range(depth):
                is_cut = factors is not None and stage > self.frozen_stages
                images = block(
                    mlp_ratio=mlp_ratio,
                    first_branch=branch,
                    name=f"block{stage}_{index}",
                    **self._same(),
                )(images, train_stage, factors if is_cut else None)
                branch += 2
            images = LayerNorm(name=f"norm{stage}", **self._types())(images)
            outputs.append(images)
        return outputs
