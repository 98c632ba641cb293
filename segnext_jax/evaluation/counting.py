"""Exact pixel counts of predictions against labels, on the host.

Counts are 64-bit integers and are added up as such, over images and over processes.
"""

import dataclasses
import math

import cv2
import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Int, UInt8

LabelMap = UInt8[np.ndarray, "height width"]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixel counts; `+` adds them up.

    Attributes:
      confusion: [label, prediction].
      boundary: For each class the pixels of the boundary regions of its labels, of its
        predictions, and of both at once; None: not counted. See `boundary_region`.
    """

    confusion: Int[np.ndarray, "classes classes"]
    boundary: Int[np.ndarray, "3 classes"] | None = None

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sum; boundaries must be counted in both or in neither."""
        if self.boundary is None or other.boundary is None:
            assert self.boundary is None and other.boundary is None
            return Counts(self.confusion + other.confusion)
        return Counts(self.confusion + other.confusion, self.boundary + other.boundary)

    @classmethod
    def zeros(cls, num_classes: int, has_boundary: bool) -> "Counts":
        """Return what to start from."""
        boundary = np.zeros((3, num_classes), np.int64) if has_boundary else None
        return cls(np.zeros((num_classes, num_classes), np.int64), boundary)


def count_image(
    prediction: LabelMap,
    labels: LabelMap,
    *,
    num_classes: int,
    ignore_label: int,
    boundary_ratio: float | None = None,
) -> Counts:
    """Count the pixels of one image.

    Args:
      prediction: Train ids in [0, num_classes).
      labels: Train ids, or ``ignore_label``.
      num_classes: Number of train ids.
      ignore_label: Label of pixels that are not counted, nowhere.
      boundary_ratio: Width of boundary regions as a share of the image's diagonal;
        None: boundaries are not counted.
    """
    is_counted = labels != ignore_label
    confusion = _count_pairs(labels[is_counted], prediction[is_counted], num_classes)
    if boundary_ratio is None:
        return Counts(confusion)
    width = boundary_width(labels.shape, boundary_ratio)
    # A region depends on all pixels, ignored ones too; only counted pixels are counted.
    of_labels = boundary_region(labels, width) & is_counted
    of_prediction = boundary_region(prediction, width) & is_counted
    is_hit = of_labels & of_prediction & (labels == prediction)
    regions = (labels[of_labels], prediction[of_prediction], labels[is_hit])
    boundary = np.stack([np.bincount(ids, minlength=num_classes) for ids in regions])
    return Counts(confusion, boundary.astype(np.int64))


def _count_pairs(
    labels: UInt8[np.ndarray, " pixels"],
    prediction: UInt8[np.ndarray, " pixels"],
    num_classes: int,
) -> Int[np.ndarray, "classes classes"]:
    cells = labels.astype(np.int64) * num_classes + prediction
    counts = np.bincount(cells, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def boundary_width(size: tuple[int, ...], ratio: float) -> int:
    """Return the width of boundary regions in pixels: a share of the diagonal."""
    return max(1, round(ratio * math.hypot(*size)))


def boundary_region(labels: LabelMap, width: int) -> Bool[np.ndarray, "height width"]:
    """Return the pixels that lie at most ``width`` from the boundary of their class.

    The region of a class is its mask without the mask eroded ``width`` times by 3x3,
    where all that lies outside of the image counts as not of the class. A pixel is lost
    to that erosion exactly if the square of side 2 ``width`` + 1 around it leaves the
    image or holds another id, so that one maximum and one minimum filter give the
    regions of all classes at once.

    Source: ``mask_to_boundary`` of Cheng et al., "Boundary IoU: improving
    object-centric image segmentation evaluation", CVPR 2021.
    """
    height, wide = labels.shape
    side = np.ones(2 * width + 1, np.uint8)
    largest = smallest = labels
    for kernel in (side[:, None], side[None]):  # The square, one axis at a time.
        largest = cv2.dilate(largest, kernel)
        smallest = cv2.erode(smallest, kernel)
    region = largest != smallest
    region[: min(width, height)] = region[max(height - width, 0) :] = True
    region[:, : min(width, wide)] = region[:, max(wide - width, 0) :] = True
    return region


def sum_over_processes(counts: Counts) -> Counts:
    """Return the sum of all processes' counts, the same on each of them.

    JAX has no 64-bit integers by default, so the processes exchange counts as pairs of
    32-bit words, and each process adds them up afterwards.
    """
    if jax.process_count() == 1:
        return counts
    arrays = [counts.confusion]
    if counts.boundary is not None:
        arrays.append(counts.boundary)
    summed = []
    for array in arrays:
        words = np.ascontiguousarray(array).view(np.uint32)
        gathered = np.asarray(multihost_utils.process_allgather(words))
        summed.append(np.ascontiguousarray(gathered).view(np.int64).sum(axis=0))
    return Counts(*summed)
