"""Segmentation metrics from exact counts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from segnext_jax.evaluation.counting import Counts

PerClass = Float[np.ndarray, " classes"]


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Shares in 0..1; nan where there is nothing to divide by.

    Attributes:
      iou: Intersection over union per class (IoU).
      accuracy: Share of a class's labelled pixels that are right (Acc): its recall.
      dice: Dice coefficient per class, which is the F-score: the harmonic mean of
        precision and recall.
      precision: Share of a class's predicted pixels that are right.
      boundary_iou: IoU of the boundary regions per class; None: not counted.
      pixel_accuracy: Share of labelled pixels that are right (aAcc).
      frequency_weighted_iou: Mean of ``iou``, weighted by labelled pixels (fwIoU).
      confusion: Pixel counts [label, prediction], int64.
    """

    iou: PerClass
    accuracy: PerClass
    dice: PerClass
    precision: PerClass
    boundary_iou: PerClass | None
    pixel_accuracy: float
    frequency_weighted_iou: float
    confusion: Int[np.ndarray, "classes classes"]

    @property
    def mean_iou(self) -> float:
        """Mean of ``iou`` over the classes that have one (mIoU)."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of ``accuracy`` likewise (mAcc)."""
        return _mean(self.accuracy)

    def per_class(self) -> dict[str, PerClass]:
        """Return the values of all classes under the names of the literature."""
        values = {
            "IoU": self.iou,
            "Acc": self.accuracy,
            "Dice": self.dice,
            "Precision": self.precision,
        }
        if self.boundary_iou is not None:
            values["BoundaryIoU"] = self.boundary_iou
        return values

    def summary(self) -> dict[str, float]:
        """Return what a network is compared by, under the names of the literature."""
        return {
            "mIoU": self.mean_iou,
            "mAcc": self.mean_accuracy,
            "aAcc": self.pixel_accuracy,
        }

    def means(self) -> dict[str, float]:
        """Return all numbers of the whole: the summary, and the means of the rest."""
        rest = {f"m{name}": _mean(values) for name, values in self.per_class().items()}
        return self.summary() | {"fwIoU": self.frequency_weighted_iou} | rest

    def to_log(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the means, and IoU by class; None for nan, as JSON has none."""
        everything = self.to_dict(classes)
        return {name: everything[name] for name in (*self.means(), "IoU")}

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return means and per-class values; None for nan, as JSON has none."""
        return {
            **{name: _or_none(value) for name, value in self.means().items()},
            **{
                name: dict(zip(classes, map(_or_none, values), strict=True))
                for name, values in self.per_class().items()
            },
        }


def compute_metrics(counts: Counts) -> Metrics:
    """Return the metrics of the counts of a whole data set.

    With I the diagonal of the confusion matrix, L its row sums (label), P its column
    sums (prediction), for each class

        IoU = I / (L + P - I)    Acc = recall = I / L    precision = I / P
        Dice = F-score = 2 I / (L + P)

    and over all: aAcc = sum I / sum L, fwIoU = sum of IoU L / sum L. Boundary IoU is
    the IoU of the counts of boundary regions. 0 / 0 is nan, and the means leave it
    out: IoU, Dice and boundary IoU of a class that occurs in neither, Acc of one
    without labels, precision of one that is never predicted.

    Source: ``mmseg/core/evaluation/metrics.py`` of SegNeXt@c87bcae; its numbers
    without its rounding to percents of two digits. fwIoU: Long et al., "Fully
    convolutional networks for semantic segmentation", CVPR 2015.
    Differs: Its F-score of a class that is never hit is nan and left out of the mean;
    here it is 0, as Dice and IoU are there and here.
    """
    confusion = np.asarray(counts.confusion, np.int64)
    hits = np.diag(confusion)
    labelled, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    union = labelled + predicted - hits
    iou, recall = _ratio(hits, union), _ratio(hits, labelled)
    precision = _ratio(hits, predicted)
    boundary_iou = None
    if counts.boundary is not None:
        of_labels, of_prediction, both = counts.boundary
        boundary_iou = _ratio(both, of_labels + of_prediction - both)
    weighted = np.where(labelled > 0, labelled * np.nan_to_num(iou), 0)
    return Metrics(
        iou=iou,
        accuracy=recall,
        dice=_ratio(2 * hits, labelled + predicted),
        precision=precision,
        boundary_iou=boundary_iou,
        pixel_accuracy=float(_ratio(hits.sum(), labelled.sum())),
        frequency_weighted_iou=float(_ratio(weighted.sum(), labelled.sum())),
        confusion=confusion,
    )


def spread(metrics: Sequence[Metrics]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation, smallest and largest of each mean.

    Args:
      metrics: The metrics of at least two evaluations; the deviation is that of a
        sample (n - 1).
    """
    summaries = [one.means() for one in metrics]
    columns = {name: [s[name] for s in summaries] for name in summaries[0]}
    return {
        name: {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)),
            "min": min(values),
            "max": max(values),
        }
        for name, values in columns.items()
    }


def _ratio(numerator: Any, denominator: Any) -> Any:
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    is_defined = denominator > 0
    return np.where(
        is_defined, numerator / np.where(is_defined, denominator, 1), np.nan
    )


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
