"""The training step of a segmentation: distort colours, normalise, and the loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict

from segnext_jax.ops import photometric
from segnext_jax.training.objective import Objective
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.step import PreparedBatch, StepFn, make_update_step, step_keys

# Fields by which images are normalised.
_SCALE = ("mean", "std")


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
    objective = Objective.from_config(config.loss, ignore_label)

    def prepare(batch: dict[str, Any], keys: dict[str, Array]) -> PreparedBatch:
        images, labels = network_images(config.data, batch, keys), batch["label"]
        divisor = objective.divisor(labels)

        def score(logits: Array, labels: Array) -> tuple[dict[str, Any], Any]:
            return objective.score(logits, labels, divisor, 1 / config.accumulate_steps)

        num_labels = jnp.sum(labels != objective.ignore_label)
        return PreparedBatch(images, labels, score, num_labels)

    return make_update_step(model, optimizer, prepare, config, params_in_use)


def network_images(data: Any, batch: dict[str, Any], keys: dict[str, Array]) -> Array:
    """Return the images of a batch with distorted colours, normalised.

    Args:
      data: The section ``data`` of a configuration.
      batch: See `make_segmentation_step`.
      keys: See `step_keys`.
    """
    images = batch["image"]
    if data.photometric:
        images = photometric.distort(images, keys["photometric"])
    if data.grey_probability:
        images = images.astype(jnp.float32)
        key = keys["grey"]
        images = photometric.drop_colour(images, key, data.grey_probability)
    images = photometric.normalize(images, data.mean, data.std)
    return photometric.clear_padding(images, batch["size"])


def shown_crops(
    config: ConfigDict, step: int, batch: dict[str, Any]
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Return what the network sees in a step, as pictures.

    Args:
      config: The configuration; its seed and the section ``data`` are used.
      step: The step, from 0.
      batch: Its batch.
    """

    @jax.jit
    def see(batch: dict[str, Any], step: Array) -> Array:
        images = network_images(config.data, batch, step_keys(config.seed, step))
        mean, std = (jnp.array(config.data[name])[None, None, None] for name in _SCALE)
        return jnp.clip(jnp.round(images * std + mean), 0, 255).astype(jnp.uint8)

    return np.asarray(see(batch, np.uint32(step)))
