"""Evaluate a network over a split: every image once, counts exact."""

import concurrent.futures
import functools
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from segnext_jax.evaluation import counting, inference
from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.evaluation.metrics import Metrics, compute_metrics

# Called with image_id, image, label and prediction of one image.
ExampleFn = Callable[[str, np.ndarray, np.ndarray, np.ndarray], None]

_NUM_COUNTING_THREADS = 2


def measure_segmentation(
    network: inference.Inference,
    batches: Iterable[LabelledBatch],
    *,
    num_classes: int,
    ignore_label: int,
    boundary_ratio: float | None = None,
    examples: Collection[int] = (),
    example_fn: ExampleFn | None = None,
) -> Metrics:
    """Return the metrics of a network over all batches of all processes.

    Args:
      network: How the network is applied.
      batches: This process's rows of each batch; all processes have the same number.
      num_classes: Number of train ids.
      ignore_label: Label of pixels that are not counted.
      boundary_ratio: See `counting.count_image`.
      examples: Numbers, from 0, of the images of this process that are given to
        ``example_fn``, at the size of the first ratio; see `evenly`.
      example_fn: See `ExampleFn`.

    Raises:
      FloatingPointError: If scores of an image are not numbers.
    """
    count = functools.partial(
        counting.count_image,
        num_classes=num_classes,
        ignore_label=ignore_label,
        boundary_ratio=boundary_ratio,
    )
    total = counting.Counts.zeros(num_classes, boundary_ratio is not None)
    number = 0
    # Counting a batch goes on while the devices compute the next one.
    with concurrent.futures.ThreadPoolExecutor(_NUM_COUNTING_THREADS) as executor:
        pending: list[concurrent.futures.Future] = []
        for batch in batches:
            predictions = network.label_maps(batch)
            _check_finite(predictions, batch.image_ids, num_classes)
            total = sum((future.result() for future in pending), start=total)
            rows = np.flatnonzero(batch.mask).tolist()
            pending = [
                executor.submit(count, predictions[row], batch.labels[row])
                for row in rows
            ]
            for row in rows:
                if example_fn is not None and number in examples:
                    height, width = batch.fitted_sizes[0][batch.rows[row]].inner
                    example_fn(
                        batch.image_ids[row],
                        batch.images[0][row, :height, :width],
                        batch.labels[row],
                        predictions[row],
                    )
                number += 1
        total = sum((future.result() for future in pending), start=total)
    return compute_metrics(counting.sum_over_processes(total))


def evenly(count: int, total: int) -> set[int]:
    """Return numbers of images that lie evenly in a split.

    The first images by name would often be frames of one scene.

    >>> sorted(evenly(4, 100))
    [12, 37, 62, 87]
    """
    return {(2 * i + 1) * total // (2 * count) for i in range(count)}


def _check_finite(
    predictions: Sequence[np.ndarray], image_ids: Sequence[str], num_classes: int
) -> None:
    for prediction, image_id in zip(predictions, image_ids, strict=True):
        if prediction.max() >= num_classes:
            raise FloatingPointError(
                f"scores must be numbers: those of {image_id} hold nan at "
                f"{np.count_nonzero(prediction >= num_classes)} pixels. The weights "
                "are broken, or overflow: take an earlier checkpoint, or evaluate "
                "with config.model.dtype float32."
            )
