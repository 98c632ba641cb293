"""Evaluate a network over a split: every image once, counts exact."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from segnext_jax.evaluation import metrics as metrics_lib
from segnext_jax.evaluation.inference import predict_labels

LogitsFn = Callable[
    [UInt8[Array, "batch height width 3"]],
    Float[Array, "batch small_height small_width classes"],
]
# Called with image_id, image, label and prediction of one image.
ExampleFn = Callable[[str, np.ndarray, np.ndarray, np.ndarray], None]


def evaluate(
    logits_fn: LogitsFn,
    batches: Iterable[dict[str, Any]],
    *,
    num_classes: int,
    ignore_label: int,
    shard_fn: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]],
    num_examples: int = 0,
    example_fn: ExampleFn | None = None,
) -> metrics_lib.Metrics:
    """Return the metrics of a network over all batches.

    Args:
      logits_fn: Network applied to uint8 RGB images.
      batches: As `segnext_jax.pipeline.evaluation_batches.eval_batches` gives them:
        ``image``, ``label``, ``mask`` and ``image_id``.
      num_classes: Number of train ids.
      ignore_label: Label of pixels that are not counted.
      shard_fn: Puts a batch of NumPy arrays on the devices.
      num_examples: The first so many images of this process are given to
        ``example_fn``.
      example_fn: See `ExampleFn`.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    num_shown = 0
    for batch in batches:
        arrays = shard_fn({name: batch[name] for name in ("image", "label", "mask")})
        counts, predictions = _count(
            logits_fn(arrays["image"]),
            arrays["label"],
            arrays["mask"],
            network_size=batch["image"].shape[1:3],
            num_classes=num_classes,
            ignore_label=ignore_label,
        )
        # Replicated: every process adds up the counts of the whole batch.
        confusion += np.asarray(jax.device_get(counts), np.int64)
        if example_fn is not None and num_shown < num_examples:
            local = _local_rows(predictions)
            for row, is_real in enumerate(batch["mask"]):
                if is_real and num_shown < num_examples:
                    example_fn(
                        batch["image_id"][row],
                        batch["image"][row],
                        batch["label"][row],
                        local[row],
                    )
                    num_shown += 1
    return metrics_lib.compute_metrics(confusion)


def _local_rows(array: jax.Array) -> np.ndarray:
    """Return this process's rows of an array that is spread over its first axis."""
    shards = {
        shard.index[0].start or 0: shard.data for shard in array.addressable_shards
    }
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


@functools.partial(
    jax.jit, static_argnames=("network_size", "num_classes", "ignore_label")
)
def _count(logits, labels, mask, *, network_size, num_classes, ignore_label):
    predictions = predict_labels(logits, network_size, labels.shape[1:])
    counts = metrics_lib.confusion_matrix(
        predictions,
        labels,
        mask,
        num_classes=num_classes,
        ignore_label=ignore_label,
    )
    return counts, predictions.astype(labels.dtype)
