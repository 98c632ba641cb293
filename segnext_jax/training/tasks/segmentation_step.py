"""What a training step of a segmentation begins with: colours, and then the loss."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

from segnext_jax.ops import photometric
from segnext_jax.training.objective import Objective
from segnext_jax.training.step import PreparedBatch, PrepareFn


def segmentation_batch(config: ConfigDict, ignore_label: int) -> PrepareFn:
    """Return what `segnext_jax.training.step.make_step` needs of a segmentation.

    A batch holds ``image`` (uint8 RGB), ``label`` (uint8 train ids) of one size, and
    ``size`` (int32 height, width of what is not padding).

    Args:
      config: Its sections ``loss`` and ``data`` (mean, std, photometric and
        grey_probability), and ``accumulate_steps``.
      ignore_label: Label of pixels that take no part.
    """
    data, objective = config.data, Objective.from_config(config.loss, ignore_label)

    def prepare(batch: dict[str, Any], keys: dict[str, Array]) -> PreparedBatch:
        images, labels = batch["image"], batch["label"]
        images = photometric.augment(images, keys, data)
        images = photometric.normalize(images, data.mean, data.std)
        images = photometric.clear_padding(images, batch["size"])
        divisor = objective.divisor(labels)

        def score(logits: Array, labels: Array) -> tuple[dict[str, Any], Any]:
            return objective.score(logits, labels, divisor, 1 / config.accumulate_steps)

        num_labels = jnp.sum(labels != objective.ignore_label)
        return PreparedBatch(images, labels, score, num_labels)

    return prepare
