"""The light Hamburger head: SegNeXt's decoder."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.models.initialization import CLASSIFIER_DEVIATION
from segnext_jax.models.pointwise import JoinedPointwise, Pointwise
from segnext_jax.ops import nmf
from segnext_jax.ops.group_norm import group_norm
from segnext_jax.ops.resize import resize_bilinear

NUM_GROUPS = 32
EVAL_BASES = ("fixed", "random")


def fixed_bases(seed: int, channels: int, rank: int) -> Float[Array, "1 channels rank"]:
    """Return the starting bases that inference takes for every image.

    Args:
      seed: At least 0.
      channels: Width of the head.
      rank: Number of bases.
    """
    return nmf.draw_bases(jax.random.key(seed), 1, channels, rank)


class GroupNorm(nn.Module):
    """The normalisation of the head, with PyTorch's epsilon.

    Attributes:
      has_relu: Whether a ReLU comes last.
    """

    has_relu: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return the normalised images."""
        shape = images.shape[-1:]
        return group_norm(
            images.astype(self.dtype),
            self.param("scale", nn.initializers.ones, shape, self.param_dtype),
            self.param("bias", nn.initializers.zeros, shape, self.param_dtype),
            num_groups=NUM_GROUPS,
            epsilon=1e-5,
            has_relu=self.has_relu,
        )


class ConvModule(nn.Module):
    """1x1 convolution, then GroupNorm of 32 groups and ReLU or not; or bias and ReLU.

    Source: ``ConvModule`` of mmcv, as used in ``ham_head.py`` of SegNeXt@c87bcae.
    """

    features: int
    use_norm: bool = True
    use_relu: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        coefficients: Float[Array, "batch rows columns width"] | None = None,
    ) -> Float[Array, "batch _ _ features"]:
        """Return maps of ``features`` channels.

        Args:
          images: Maps; with ``coefficients`` of height 1: bases, one beside the other.
          coefficients: Of the bases at each place, whose weighted sums are the maps
            that the convolution is meant for. ``(C D) K`` is ``C (D K)``: the
            convolution of the bases takes fewer multiplications.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        images = Pointwise(
            self.features,
            use_bias=not self.use_norm,
            has_relu=self.use_relu and not self.use_norm,
            name="conv",
            **types,
        )(images)
        if coefficients is not None:
            images = nmf.product(
                "bhwr,brd->bhwd", coefficients.astype(images.dtype), images[:, 0]
            )
        if self.use_norm:
            images = GroupNorm(self.use_relu, name="gn", **types)(images)
        return images


class Squeeze(nn.Module):
    """Maps of several sizes to one: resize, join, 1x1 convolution, GroupNorm, ReLU.

    Resize and convolution are linear. One acts on pixels alone and the other on
    channels alone, so that they may change places. By default the convolution comes
    first: each map is multiplied with its part of the kernel at the map's own size,
    which takes a quarter of the multiplications for the published networks.

    Attributes:
      features: Number of channels that come out.
      official_order: Resize and join before the convolution.

    Source: ``LightHamHead._forward_feature`` in ``ham_head.py`` of SegNeXt@c87bcae.
    Differs: in the order; equal to rounding.
    """

    features: int
    official_order: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, maps: list[Float[Array, "batch _ _ _"]], size: tuple[Any, ...]
    ) -> Float[Array, "batch height width features"]:
        """Return one map of ``size`` = (height, width)."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.official_order:
            joined = jnp.concatenate([resize_bilinear(m, size) for m in maps], axis=-1)
            conv = Pointwise(self.features, use_bias=False, name="conv", **types)
            images = conv(joined)
        else:
            conv = JoinedPointwise(self.features, name="conv", **types)
            first, *others = (resize_bilinear(part, size) for part in conv(maps))
            images = sum(others, first)
        return GroupNorm(True, name="gn", **types)(images)


class Hamburger(nn.Module):
    """Global context by low-rank reconstruction: ``relu(x + out(ham(relu(in(x)))))``.

    Attributes:
      rank: Number of bases.
      train_steps: Update steps in training.
      eval_steps: The same at inference.
      eval_bases: At inference ``"fixed"`` by ``eval_seed``, the same for every image,
        or ``"random"``: drawn from the rng ``nmf`` for each image.
      eval_seed: Seed of the fixed bases.
      gradient: Through all steps (``"full"``) or the last (``"one_step"``).
      official_order: Multiply the factors before the convolution ``out``, which by
        default multiplies the bases alone: a product less of all places and channels.

    Source: paper section 3.2; ``Hamburger`` in ``ham_head.py`` of SegNeXt@c87bcae.
    Differs: at inference the bases are fixed by default, so that a prediction is a
    function of image and weights; the official code draws them anew at each call, as
    ``eval_bases="random"`` does.
    """

    rank: int
    train_steps: int = 6
    eval_steps: int = 7
    eval_bases: str = "fixed"
    eval_seed: int = 0
    gradient: str = "full"
    official_order: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        bases: Float[Array, "#batch channels rank"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width channels"]:
        """Return images of the same shape.

        Args:
          images: Feature maps.
          bases: Starting bases, of each image or of all. None: drawn from the rng
            ``nmf`` in training, by ``eval_bases`` otherwise.
          train: Whether to take the training number of steps.

        Raises:
          ValueError: If ``gradient`` or ``eval_bases`` is unknown, or the network draws
            bases and the rng ``nmf`` is not given.
        """
        batch, height, width, channels = images.shape
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        ham = ConvModule(channels, use_norm=False, name="ham_in", **types)(images)
        if bases is None:
            bases = self._draw(batch, channels, train)
        coefficients, bases = nmf.factorize(
            ham.reshape(batch, height * width, channels),
            jnp.broadcast_to(bases, (batch, channels, self.rank)),
            num_steps=self.train_steps if train else self.eval_steps,
            gradient=self.gradient,
        )
        out = ConvModule(channels, use_relu=False, name="ham_out", **types)
        if self.official_order:
            ham = nmf.product("bnr,bdr->bnd", coefficients, bases)
            ham = out(ham.reshape(images.shape).astype(images.dtype))
        else:
            ham = out(
                jnp.swapaxes(bases, 1, 2)[:, None].astype(images.dtype),
                coefficients.reshape(batch, height, width, self.rank),
            )
        return nn.relu(images + ham)

    def _draw(self, batch: int, channels: int, train: bool) -> Array:
        if self.eval_bases not in EVAL_BASES:
            raise ValueError(
                f"eval_bases must be one of {', '.join(EVAL_BASES)}: "
                f"got {self.eval_bases!r}."
            )
        if train or self.eval_bases == "random":
            if not (self.has_rng("nmf") or self.is_initializing()):
                raise ValueError(
                    "bases can only be drawn with the rng 'nmf': none was given. Pass "
                    "rngs={'nmf': key}, or bases, or use eval_bases='fixed' at "
                    "inference."
                )
            return nmf.draw_bases(self.make_rng("nmf"), batch, channels, self.rank)
        return fixed_bases(self.eval_seed, channels, self.rank)


class LightHamHead(nn.Module):
    """Join stages 2 to 4 at 1/8 of the image, add global context, classify pixels.

    Attributes:
      num_classes: Number of train ids.
      channels: Width of the head.
      rank: Number of bases; this and what follows: see `Hamburger`.
      dropout_rate: Probability to drop a whole channel before the classifier.
      official_order: Compute as the official code does where an order of linear steps
        takes fewer multiplications: see `Squeeze` and `Hamburger`.

    Source: paper figure 3c; ``LightHamHead`` in
    ``mmseg/models/decode_heads/ham_head.py`` of SegNeXt@c87bcae.
    """

    num_classes: int
    channels: int = 256
    rank: int = 16
    train_steps: int = 6
    eval_steps: int = 7
    eval_bases: str = "fixed"
    eval_seed: int = 0
    gradient: str = "full"
    dropout_rate: float = 0.1
    official_order: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: list[Float[Array, "batch _ _ _"]],
        bases: Float[Array, "#batch channels rank"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width classes"]:
        """Return logits at the size of stage 2.

        Args:
          features: The four outputs of `MSCAN`; the first is not used.
          bases: See `Hamburger`.
          train: Drop channels (needs the rng ``dropout``), training number of steps.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        features = features[1:]
        squeeze = Squeeze(
            self.channels, official_order=self.official_order, name="squeeze", **types
        )
        images = squeeze(features, features[0].shape[1:3])
        images = Hamburger(
            rank=self.rank,
            train_steps=self.train_steps,
            eval_steps=self.eval_steps,
            eval_bases=self.eval_bases,
            eval_seed=self.eval_seed,
            gradient=self.gradient,
            official_order=self.official_order,
            name="hamburger",
            **types,
        )(images, bases, train)
        images = ConvModule(self.channels, name="align", **types)(images)
        # Dropout2d: one draw per image and channel, shared by all its pixels.
        images = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))(
            images, deterministic=not train
        )
        return Pointwise(
            self.num_classes,
            kernel_init=nn.initializers.normal(CLASSIFIER_DEVIATION),
            name="conv_seg",
            **types,
        )(images)
