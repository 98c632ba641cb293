"""What a training step of a segmentation begins with: colours, and then the loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict

from segnext_jax.ops import photometric
from segnext_jax.training.objective import Objective
from segnext_jax.training.step import PreparedBatch, PrepareFn, step_keys

# Fields by which images are normalised.
_SCALE = ("mean", "std")


def segmentation_batch(config: ConfigDict, ignore_label: int) -> PrepareFn:
    """Return what `segnext_jax.training.step.make_step` needs of a segmentation.

    A batch holds ``image`` (uint8 RGB), ``label`` (uint8 train ids) of one size, and
    ``size`` (int32 height, width of what is not padding).

    Args:
      config: Its sections ``loss`` and ``data`` (mean, std, photometric and
        grey_probability), and ``accumulate_steps``.
      ignore_label: Label of pixels that take no part.
    """
    objective = Objective.from_config(config.loss, ignore_label)

    def prepare(batch: dict[str, Any], keys: dict[str, Array]) -> PreparedBatch:
        images, labels = network_images(config.data, batch, keys), batch["label"]
        divisor = objective.divisor(labels)

        def score(logits: Array, labels: Array) -> tuple[dict[str, Any], Any]:
            return objective.score(logits, labels, divisor, 1 / config.accumulate_steps)

        num_labels = jnp.sum(labels != objective.ignore_label)
        return PreparedBatch(images, labels, score, num_labels)

    return prepare


def network_images(data: Any, batch: dict[str, Any], keys: dict[str, Array]) -> Array:
    """Return the images of a batch with distorted colours, normalised.

    Args:
      data: The section ``data`` of a configuration.
      batch: See `segmentation_batch`.
      keys: See `step_keys`.
    """
    images = photometric.augment(batch["image"], keys, data)
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
