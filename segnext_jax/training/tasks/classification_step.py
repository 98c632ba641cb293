"""What a training step of a classifier begins with: mix, normalise, erase; its loss."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from segnext_jax.ops import photometric
from segnext_jax.ops.erasing import erase
from segnext_jax.ops.mixing import draw_mixing, mix_images, mix_labels
from segnext_jax.training.step import PreparedBatch, PrepareFn


def classification_batch(
    config: ConfigDict, num_classes: int, whole: jax.sharding.Sharding | None = None
) -> PrepareFn:
    """Return what `segnext_jax.training.step.make_step` needs of a classification.

    A batch holds ``image`` (uint8 RGB) and ``label`` (int32). A mixed image's right
    answer is the class of which it has most.

    Args:
      config: Its section ``classification``, ``loss.label_smoothing``, ``data.mean``
        and ``data.std``.
      num_classes: Number of classes.
      whole: Sharding of what each device holds whole; None: XLA's choice.
    """
    options, data = config.classification, config.data

    def prepare(batch: dict[str, Any], keys: dict[str, Array]) -> PreparedBatch:
        images, labels = batch["image"], batch["label"]
        mixing = draw_mixing(
            keys["mixing"],
            max(1, len(labels) // options.mix_group_size),
            images.shape[1:3],
            mixup_alpha=options.mixup_alpha,
            cutmix_alpha=options.cutmix_alpha,
            switch_probability=options.switch_probability,
        )
        if whole is not None:
            # XLA would spread the groups: eight loops draw until a share is accepted,
            # and at each turn the devices would ask each other whether it is.
            mixing = jax.lax.with_sharding_constraint(mixing, whole)
        if options.mixup_alpha or options.cutmix_alpha:
            images = mix_images(images, mixing)
        targets = mix_labels(labels, mixing, num_classes, config.loss.label_smoothing)
        images = photometric.normalize(images, data.mean, data.std)
        images = erase(images, keys["erasing"], options.erase_probability)
        num_images = len(labels)

        def score(logits: Array, targets: Array) -> tuple[dict[str, Any], Any]:
            loss = soft_cross_entropy(logits, targets) / num_images
            return {"cross_entropy": loss}, _num_hits(logits, targets)

        return PreparedBatch(images, targets, score, num_images)

    return prepare


def soft_cross_entropy(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, ""]:
    """Return the sum over images of ``-sum_c targets_c log softmax(logits)_c``.

    In float32 at least.

    Args:
      logits: Scores before softmax.
      targets: Probabilities that are aimed at.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return -jnp.sum(targets.astype(logits.dtype) * jax.nn.log_softmax(logits))


def _num_hits(
    logits: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Int[Array, ""]:
    return jnp.sum(jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1))
