"""Segmentation metrics from one confusion matrix of exact counts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8


def confusion_matrix(
    predictions: Int[Array, "batch height width"],
    labels: UInt8[Array, "batch height width"],
    mask: Bool[Array, " batch"],
    *,
    num_classes: int,
    ignore_label: int = 255,
) -> Int[Array, "num_classes num_classes"]:
    """Count pixels by (label, prediction); ignored pixels and masked images not.

    Counts are int32: a batch must hold less than 2^31 pixels. Add up batches in int64.

    Args:
      predictions: Train ids in [0, num_classes).
      labels: Train ids, or ``ignore_label``.
      mask: False for images that only fill up the batch.
      num_classes: Size of the matrix.
      ignore_label: Label of pixels that are not counted.
    """
    labels = labels.astype(jnp.int32)
    is_counted = (labels != ignore_label) & mask[:, None, None]
    cell = labels * num_classes + predictions.astype(jnp.int32)
    # One bin more takes the pixels that are not counted.
    num_cells = num_classes * num_classes
    cell = jnp.where(is_counted, cell, num_cells)
    counts = jnp.bincount(cell.reshape(-1), length=num_cells + 1)
    return counts[:num_cells].reshape(num_classes, num_classes)


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Shares in 0..1; nan where a class occurs nowhere.

    Attributes:
      mean_iou: Mean of ``iou`` over classes that are not nan (mIoU).
      mean_accuracy: Mean of ``accuracy`` likewise (mAcc).
      pixel_accuracy: Share of labelled pixels that are right (aAcc).
      iou: Intersection over union per class.
      accuracy: Share of a class's labelled pixels that are right, per class.
      confusion: Pixel counts [label, prediction], int64.
    """

    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: Float[np.ndarray, " classes"]
    accuracy: Float[np.ndarray, " classes"]
    confusion: Int[np.ndarray, "classes classes"]

    def summary(self) -> dict[str, float]:
        """Return the three means under the names of the literature."""
        return {
            "mIoU": self.mean_iou,
            "mAcc": self.mean_accuracy,
            "aAcc": self.pixel_accuracy,
        }

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return means and per-class values; None for nan, as JSON has none."""

        def values(array: np.ndarray) -> dict[str, float | None]:
            finite = [None if np.isnan(v) else float(v) for v in array]
            return dict(zip(classes, finite, strict=True))

        return {
            **self.summary(),
            "IoU": values(self.iou),
            "Acc": values(self.accuracy),
        }


def compute_metrics(confusion: Int[np.ndarray, "classes classes"]) -> Metrics:
    """Return the metrics of a confusion matrix [label, prediction].

    ``IoU_c = I_c / (L_c + P_c - I_c)``, ``Acc_c = I_c / L_c``, ``aAcc = sum I / sum L``
    with I the diagonal, L the row sums (label), P the column sums (prediction).

    A class that occurs in neither has IoU nan, one without labels has Acc nan; the
    means leave them out.

    Source: ``mmseg/core/evaluation/metrics.py`` of SegNeXt@c87bcae, whose counts are
    summed over the whole data set.
    """
    confusion = np.asarray(confusion, np.int64)
    hits = np.diag(confusion).astype(np.float64)
    labelled = confusion.sum(axis=1).astype(np.float64)
    predicted = confusion.sum(axis=0).astype(np.float64)
    iou = _ratio(hits, labelled + predicted - hits)
    accuracy = _ratio(hits, labelled)
    return Metrics(
        mean_iou=_mean(iou),
        mean_accuracy=_mean(accuracy),
        pixel_accuracy=float(_ratio(hits.sum(), labelled.sum())),
        iou=iou,
        accuracy=accuracy,
        confusion=confusion,
    )


def _ratio(numerator: Any, denominator: Any) -> Any:
    is_defined = np.asarray(denominator) > 0
    return np.where(
        is_defined, numerator / np.where(is_defined, denominator, 1), np.nan
    )


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def format_table(metrics: Metrics, classes: Sequence[str]) -> str:
    """Return the per-class table and the means, in percent, as text."""
    labelled = metrics.confusion.sum(axis=1)
    share = 100 * labelled / max(labelled.sum(), 1)
    width = max(len("class"), *(len(name) for name in classes))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'Acc':>6}  {'pixels':>6}"]
    rows = zip(classes, metrics.iou, metrics.accuracy, share, strict=True)
    for name, iou, accuracy, pixels in rows:
        lines.append(
            f"{name:<{width}}  {_percent(iou)}  {_percent(accuracy)}  {pixels:5.1f}%"
        )
    means = "  ".join(f"{k} {100 * v:.2f}" for k, v in metrics.summary().items())
    return "\n".join([*lines, means])


def _percent(value: float) -> str:
    return f"{'-':>6}" if np.isnan(value) else f"{100 * value:6.2f}"
