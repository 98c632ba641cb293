"""The training step of a classifier: mix, normalise, erase, and the loss of it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from segnext_jax.ops import photometric
from segnext_jax.ops.erasing import erase
from segnext_jax.ops.mixing import draw_mixing, mix_images, mix_labels
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training.step import PreparedBatch, StepFn, make_update_step


def make_classification_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    rules: tuple[optimizer_lib.Rule, ...],
    num_classes: int,
    label_smoothing: float,
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_probability: float,
    mix_group_size: int,
    erase_probability: float,
    seed: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    accumulate_steps: int = 1,
    average_decay: float = 0.0,
    params_in_use: jax.sharding.Sharding | None = None,
) -> StepFn:
    """Return ``(state, batch) -> (state, metrics)``, to be jitted by the caller.

    Args:
      model: `segnext_jax.models.classifier.MSCANClassifier`.
      optimizer: See `segnext_jax.training.optimizer.adamw`.
      rules: Tell which parameters are trained.
      num_classes: Number of classes.
      label_smoothing: See `segnext_jax.ops.mixing.mix_labels`.
      mixup_alpha: See `segnext_jax.ops.mixing.draw_mixing`.
      cutmix_alpha: Likewise.
      switch_probability: Likewise.
      mix_group_size: Images that are mixed in the same way; it divides the batch, or is
        larger and means the whole.
      erase_probability: See `segnext_jax.ops.erasing.erase`.
      seed: Of all random draws of the step.
      mean: RGB mean of images, in grey levels.
      std: RGB standard deviation of images, in grey levels.
      accumulate_steps: See `segnext_jax.training.step.make_train_step`.
      average_decay: Likewise.
      params_in_use: Likewise.

    The batch holds ``image`` (uint8 RGB) and ``label`` (int32). The metrics are those
    of `segnext_jax.training.step.make_train_step`; a mixed image's right answer is the
    class of which it has most.
    """

    def prepare(batch: dict[str, Any], keys: dict[str, Array]) -> PreparedBatch:
        images, labels = batch["image"], batch["label"]
        mixing = draw_mixing(
            keys["mixing"],
            max(1, len(labels) // mix_group_size),
            images.shape[1:3],
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            switch_probability=switch_probability,
        )
        if mixup_alpha or cutmix_alpha:
            images = mix_images(images, mixing)
        targets = mix_labels(labels, mixing, num_classes, label_smoothing)
        images = photometric.normalize(images, mean, std)
        images = erase(images, keys["erasing"], erase_probability)
        num_images = len(labels)

        def score(logits: Array, targets: Array) -> tuple[dict[str, Any], Any]:
            loss = soft_cross_entropy(logits, targets) / num_images
            return {"cross_entropy": loss}, _num_hits(logits, targets)

        return PreparedBatch(images, targets, score, num_images)

    return make_update_step(
        model,
        optimizer,
        prepare,
        rules=rules,
        seed=seed,
        accumulate_steps=accumulate_steps,
        average_decay=average_decay,
        params_in_use=params_in_use,
    )


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
