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

# See `source_part`: in pixels of the image, and places that are looked at.
_ALIGNMENT = 1 / 32
_NUM_BEGIN_TRIES = 128

# See `_is_varied`: classes that are counted one by one before all are.
_NUM_SINGLE_COUNTS = 6


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
    """
    height, width = (math.ceil(side / multiple) * multiple for side in size)
    return height, width


def network_size(size: Size, scale: tuple[int, int] | None, multiple: int = 1) -> Size:
    """Return the size at which an image of a given size enters the network.

    Args:
      size: (height, width) of the image.
      scale: Two bounds as in `rescaled_size`; None for the image's own size.
      multiple: Both sides are then rounded up to a multiple of this.
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


@dataclasses.dataclass(frozen=True)
class SourcePart:
    """One side of the part of an image that a window of the resized image needs.

    Attributes:
      source: The part, in pixels of the image.
      inside: The window, in pixels of the part once it is resized.
    """

    source: slice
    inside: slice


def source_part(
    start: int, length: int, source_size: int, target_size: int
) -> SourcePart:
    """Find a part that can be resized alone and gives the pixels of the whole.

    A part that is resized by the factor of the whole is sampled at the positions of the
    whole if the part begins at a whole number of pixels before and after the resize.
    The function takes the nearest such place before the window and the reach of its
    interpolation, to 1/32 pixel (positions shift by no more than that). Where no such
    place is near, it takes the image's own edge.

    Args:
      start: First pixel of the window in the resized image.
      length: Its number of pixels.
      source_size: Length of the image.
      target_size: Length of the resized image.
    """
    step = source_size / target_size
    margin = math.ceil(0.5 / step) + 1
    begin = next(
        (
            target
            for target in range(start - margin, 0, -1)[:_NUM_BEGIN_TRIES]
            if abs(target * step - round(target * step)) <= _ALIGNMENT
        ),
        0,
    )
    first = round(begin * step)
    last = min(
        first + math.ceil((start - begin + length + 0.5) * step) + 1, source_size
    )
    return SourcePart(slice(first, last), slice(start - begin, start - begin + length))


def nearest_indices(source_size: int, target_size: int) -> Int[np.ndarray, " target"]:
    """Return the source index of each target index of a nearest-neighbour resize.

    The index is floor(target * source_size / target_size) as OpenCV's INTER_NEAREST
    computes it: without pixel centres, and in double precision with the inverse of the
    rounded ratio. In rare cases the index is one less than the exact floor.

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
    needed = labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # NumPy copies whole rows: half the time of taking single pixels.
    by_column = cv2.transpose(needed).take(columns - columns[0], axis=0)
    return cv2.transpose(by_column).take(rows - rows[0], axis=0)


def draw_crop(
    labels: UInt8[np.ndarray, "height width"],
    resized: Size,
    crop_size: Size,
    *,
    max_class_share: float,
    ignore_label: int,
    rng: np.random.Generator,
) -> tuple[CropWindow, UInt8[np.ndarray, "window_height window_width"]]:
    """Draw a window of the resized image in which no class takes too much.

    A window is refused if only one class occurs, ignored pixels aside, or if the
    largest class has `max_class_share` of the counted pixels or more. After ten refused
    windows the next one is taken as it comes. Each window draws two numbers, row first.

    Args:
      labels: The label map at its own size; the resized one is never made.
      resized: (height, width) of the resized image.
      crop_size: (height, width) of the window.
      max_class_share: Bound on the largest class; 1 accepts every window.
      ignore_label: Id that is not counted.
      rng: Source of the numbers.

    Returns:
      The window, smaller than `crop_size` where the resized image is, and the labels
      inside.
    """
    bounds = [max(r - c, 0) + 1 for r, c in zip(resized, crop_size, strict=True)]
    for attempt in range(_NUM_CROP_TRIES + 1):
        window = CropWindow(
            top=int(rng.integers(0, bounds[0])),
            left=int(rng.integers(0, bounds[1])),
            height=min(crop_size[0], resized[0]),
            width=min(crop_size[1], resized[1]),
        )
        inside = window_labels(labels, resized, window)
        if max_class_share >= 1 or attempt == _NUM_CROP_TRIES:
            break
        if _is_varied(inside, max_class_share, ignore_label):
            break
    return window, inside


def _is_varied(
    labels: UInt8[np.ndarray, "height width"], max_class_share: float, ignore_label: int
) -> bool:
    """Return whether several classes occur, and the largest below its bound."""
    num_counted = labels.size - np.count_nonzero(labels == ignore_label)
    if not num_counted:
        return False
    # Counting one class takes a tenth of the time of a histogram, and a few large ones
    # settle the matter: what they leave is too little for another to reach the bound.
    sample = np.bincount(labels[::16, ::16].ravel(), minlength=256)
    sample[ignore_label] = 0
    share_left = 1.0
    for likely_large in sample.argsort()[: -_NUM_SINGLE_COUNTS - 1 : -1].tolist():
        if likely_large == ignore_label:
            continue
        share = np.count_nonzero(labels == likely_large) / num_counted
        share_left -= share
        if share >= max_class_share:
            return False
        # A tenth of a pixel's share absorbs the rounding of the sum.
        if share_left < max_class_share - 0.1 / num_counted:
            return True
    # NumPy's bincount would make eight-byte integers of every pixel first.
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).astype(np.int64)
    counts[ignore_label] = 0
    return bool(
        np.count_nonzero(counts) > 1 and counts.max() / num_counted < max_class_share
    )
