"""Sizes and windows: the sampling rules of the official pipeline, without pixels.

Source: mmcv 1.6.0 `rescale_size`, and mmseg/datasets/pipelines/transforms.py (Resize,
RandomCrop, ResizeToMultiple, RandomFlip) in SegNeXt@c87bcae.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Int, UInt8

Size = tuple[int, int]

_NUM_CROP_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropWindow:
    """A part of a resized image, in pixels of the resized image.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows, less than asked for where the image is smaller.
        width: Number of columns, likewise.
    """

    top: int
    left: int
    height: int
    width: int


def rescaled_size(size: Size, scale: tuple[int, int]) -> Size:
    """Fit an image into a scale, keeping its aspect ratio.

    The long side is bounded by the larger number and the short side by the smaller one,
    whatever the orientation; sides are rounded half up.

    Args:
        size: (height, width) of the image.
        scale: Two bounds in pixels, in any order.

    Returns:
        (height, width) after resizing, at least one pixel each.
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    height, width = (int(side * factor + 0.5) for side in size)
    return max(height, 1), max(width, 1)


def size_of_multiple(size: Size, multiple: int) -> Size:
    """Round both sides up to a multiple.

    Args:
        size: (height, width).
        multiple: The divisor; 1 leaves the size as it is.

    Returns:
        The enlarged (height, width).
    """
    height, width = (math.ceil(side / multiple) * multiple for side in size)
    return height, width


def network_size(size: Size, scale: tuple[int, int] | None, multiple: int = 1) -> Size:
    """Return the size at which an image of a given size enters the network.

    Args:
        size: (height, width) of the image.
        scale: Two bounds as in `rescaled_size`; None for the image's own size.
        multiple: Both sides are then rounded up to a multiple of this.

    Returns:
        (height, width).
    """
    return size_of_multiple(rescaled_size(size, scale) if scale else size, multiple)


def draw_scale(
    base_scale: tuple[int, int],
    scale_range: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Draw the scale of one training example: one uniform number.

    Args:
        base_scale: Two bounds in pixels at ratio 1.
        scale_range: Smallest and largest ratio.
        rng: Source of the number.

    Returns:
        Two bounds in pixels, each cut to an integer.
    """
    low, high = scale_range
    ratio = rng.random() * (high - low) + low
    return int(base_scale[0] * ratio), int(base_scale[1] * ratio)


def nearest_indices(source_size: int, target_size: int) -> Int[np.ndarray, " target"]:
    """Return the source index of each target index of a nearest-neighbour resize.

    floor(target * source_size / target_size) as OpenCV's INTER_NEAREST has it: not of
    pixel centres, and in double precision with the inverse of the rounded ratio, which
    is one less than the exact floor in rare cases.

    Args:
        source_size: Length before.
        target_size: Length after.

    Returns:
        Indices in [0, source_size).
    """
    step = 1.0 / (target_size / source_size)
    indices = np.floor(np.arange(target_size) * step).astype(np.intp)
    return np.minimum(indices, source_size - 1)


def window_labels(
    labels: UInt8[np.ndarray, "height width"], resized: Size, window: CropWindow
) -> UInt8[np.ndarray, "window_height window_width"]:
    """Return a window of the resized label map without making the whole of it.

    Args:
        labels: The label map at its own size.
        resized: (height, width) that the whole map would be resized to.
        window: The part of the resized map to make.

    Returns:
        Exactly the values of OpenCV's nearest-neighbour resize.
    """
    rows = nearest_indices(labels.shape[0], resized[0])
    columns = nearest_indices(labels.shape[1], resized[1])
    rows = rows[window.top : window.top + window.height]
    columns = columns[window.left : window.left + window.width]
    # Columns of the rows that are needed, then rows: a fifth of the time of indexing
    # with both at once.
    needed = labels[rows[0] : rows[-1] + 1]
    return needed.take(columns, axis=1).take(rows - rows[0], axis=0)


def draw_crop(
    labels: UInt8[np.ndarray, "height width"],
    resized: Size,
    crop_size: Size,
    *,
    max_class_share: float,
    ignore_label: int,
    rng: np.random.Generator,
) -> CropWindow:
    """Draw a window of the resized image in which no class takes too much.

    Up to ten windows are refused because one class alone occurs, ignored pixels aside,
    or because the largest class has `max_class_share` of the counted pixels or more;
    the next one is taken as it comes. Each window takes two numbers, row first.

    Args:
        labels: The label map at its own size; the resized one is never made.
        resized: (height, width) of the resized image.
        crop_size: (height, width) of the window.
        max_class_share: Bound on the largest class; 1 accepts every window.
        ignore_label: Id that is not counted.
        rng: Source of the numbers.

    Returns:
        The window; smaller than `crop_size` where the resized image is.
    """

    def draw() -> CropWindow:
        top = int(rng.integers(0, max(resized[0] - crop_size[0], 0) + 1))
        left = int(rng.integers(0, max(resized[1] - crop_size[1], 0) + 1))
        return CropWindow(
            top, left, min(crop_size[0], resized[0]), min(crop_size[1], resized[1])
        )

    window = draw()
    if max_class_share >= 1:
        return window
    for _ in range(_NUM_CROP_TRIES):
        inside = window_labels(labels, resized, window)
        # NumPy's bincount would make eight-byte integers of every pixel first.
        counts = cv2.calcHist([inside], [0], None, [256], [0, 256]).astype(np.int64)
        counts[ignore_label] = 0
        if (
            np.count_nonzero(counts) > 1
            and counts.max() / counts.sum() < max_class_share
        ):
            break
        window = draw()
    return window
