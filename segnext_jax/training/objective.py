"""What a training minimises: a weighted sum of losses."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from segnext_jax.ops import losses
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.ops.upsampled import upsampled_cross_entropy, whole_factor

Labels = Int[Array, "batch height width"] | UInt8[Array, "batch height width"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The sum of `segnext_jax.ops.losses` that ``config.loss`` describes.

    Attributes:
      weights: Factor of each term by its name: ``cross_entropy``, ``focal``, ``dice``,
        ``lovasz``; a term that is 0 or missing is not computed.
      ignore_label: Label of pixels that take no part.
      average: Mean of cross-entropy and focal loss: over ``"all"`` or ``"valid"``
        pixels.
      class_weights: One factor per class for cross-entropy and focal loss. None: 1.
      label_smoothing: Label smoothing of cross-entropy, in [0, 1).
      ohem_min_kept: Hard pixels per image that cross-entropy keeps; 0: all.
      ohem_threshold: See `segnext_jax.ops.losses.hard_pixels`.
      focal_gamma: See `segnext_jax.ops.losses.focal`.
      dice_smooth: See `segnext_jax.ops.losses.dice`.
    """

    weights: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"cross_entropy": 1.0}
    )
    ignore_label: int = 255
    average: str = "all"
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ohem_min_kept: int = 0
    ohem_threshold: float = 0.7
    focal_gamma: float = 2.0
    dice_smooth: float = 1.0

    @classmethod
    def from_config(cls, config: Any, ignore_label: int) -> "Objective":
        """Return the objective of ``segnext_jax.config.base_config().loss``."""
        options = config.to_dict()
        return cls(ignore_label=ignore_label, **options)

    def divisor(self, labels: Labels) -> Float[Array, ""]:
        """Return what sums over pixels are divided by, for a whole batch."""
        return losses.count(
            labels, ignore_label=self.ignore_label, average=self.average
        )

    def score(
        self,
        logits: Float[Array, "batch small_height small_width classes"],
        labels: Labels,
        divisor: Float[Array, ""],
        share: float = 1.0,
    ) -> tuple[dict[str, Float[Array, ""]], Int[Array, ""]]:
        """Return `terms`, and the number of labelled pixels whose best class is right.

        Cross-entropy alone, without a choice of hard pixels, is computed without
        logits of the size of the labels, where these are larger by an even factor.

        Args:
          logits: Scores at any size, of any float type.
          labels: See `terms`, as for the others.
          divisor: `divisor` of the whole batch.
          share: Images of this part over those of the batch.
        """
        names = [name for name, weight in self.weights.items() if weight]
        is_plain = names == ["cross_entropy"] and not self.ohem_min_kept
        if is_plain and whole_factor(logits.shape[1:3], labels.shape[1:]):
            sums = upsampled_cross_entropy(
                logits,
                labels,
                ignore_label=self.ignore_label,
                class_weights=self.class_weights,
                label_smoothing=self.label_smoothing,
            )
            loss = self.weights["cross_entropy"] * sums.loss / divisor
            return {"cross_entropy": loss}, sums.hits
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        logits = resize_bilinear(logits, labels.shape[1:])
        is_hit = (jnp.argmax(logits, axis=-1) == labels) & (labels != self.ignore_label)
        return self.terms(logits, labels, divisor, share), jnp.sum(is_hit)

    def terms(
        self,
        logits: Float[Array, "batch height width classes"],
        labels: Labels,
        divisor: Float[Array, ""],
        share: float = 1.0,
    ) -> dict[str, Float[Array, ""]]:
        """Return the weighted terms, whose sum is the loss.

        Over the parts of a batch, cross-entropy, focal loss and Dice (a mean over
        images) add up to the terms of the batch. Lovasz-softmax and the choice of hard
        pixels look at all pixels together, so each part looks at its own pixels.

        Args:
          logits: Scores at the size of the labels.
          labels: Train ids, or ``ignore_label``.
          divisor: `divisor` of the whole batch.
          share: Images of this part over those of the batch.
        """
        pixels = {
            "ignore_label": self.ignore_label,
            "class_weights": self.class_weights,
            "divisor": divisor,
        }
        terms = {}
        for name, weight in self.weights.items():
            if not weight:
                continue
            if name == "cross_entropy":
                term = losses.cross_entropy(
                    logits,
                    labels,
                    label_smoothing=self.label_smoothing,
                    is_kept=self._hard_pixels(logits, labels),
                    **pixels,
                )
            elif name == "focal":
                term = losses.focal(logits, labels, gamma=self.focal_gamma, **pixels)
            elif name == "dice":
                term = share * losses.dice(
                    logits,
                    labels,
                    ignore_label=self.ignore_label,
                    smooth=self.dice_smooth,
                )
            elif name == "lovasz":
                term = share * losses.lovasz_softmax(
                    logits, labels, ignore_label=self.ignore_label
                )
            else:
                raise ValueError(
                    "a term of the loss must be cross_entropy, focal, dice or lovasz: "
                    f"got {name!r}."
                )
            terms[name] = weight * jnp.asarray(term)
        return terms

    def _hard_pixels(self, logits: Array, labels: Array) -> Array | None:
        if not self.ohem_min_kept:
            return None
        return losses.hard_pixels(
            logits,
            labels,
            ignore_label=self.ignore_label,
            threshold=self.ohem_threshold,
            min_kept=self.ohem_min_kept,
        )
