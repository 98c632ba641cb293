"""The training step of a segmentation: distort colours, normalise, and the loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

from segnext_jax.ops import photometric
from segnext_jax.training.objective import Objective
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.step import PreparedBatch, StepFn, make_update_step


def make_segmentation_step(
    model: nn.Module,
    optimizer: Optimizer,
    config: ConfigDict,
    ignore_label: int,
    params_in_use: jax.sharding.Sharding | None = None,
) -> StepFn:
    """Return ``(state, batch) -> (state, metrics)``, to be jitted by the caller.

    The batch holds ``image`` (uint8 RGB), ``label`` (uint8 train ids) of one size, and
    ``size`` (int32 height, width of what is not padding).

    Args:
      model: The network.
      optimizer: What is trained, and how.
      config: Its sections ``loss`` and ``data`` (mean, std, photometric and
        grey_probability); see also `make_update_step`.
      ignore_label: Label of pixels that take no part.
      params_in_use: See `make_update_step`, which tells the metrics.
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

    return make_update_step(model, optimizer, prepare, config, params_in_use)
