"""Labels of one very large image, a block of rows after the other.

`inference` holds the whole network input of a batch and the logits of all windows on
the device, and the finished maps on the host. This module holds one row of windows of
each view on the device at a time, and the logits that the next rows of the image still
need. So memory grows with the width of the image, not with its area. Tiles and matrices
are the same (`inference.tiles`, `resampling`).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from segnext_jax.evaluation import resampling, scoring
from segnext_jax.evaluation.batch import FittedSize, Size
from segnext_jax.evaluation.inference import (
    LABELS,
    PROBABILITIES,
    Inference,
    Pair,
    tiles,
)
from segnext_jax.evaluation.windows import Windows


class RowBlock(NamedTuple):
    """Some rows of an image, over its whole width.

    Attributes:
      labels: Best class of each pixel.
      probabilities: Softmax scores of each pixel, float32; None if not asked for.
    """

    labels: UInt8[np.ndarray, "rows width"]
    probabilities: Float[np.ndarray, "rows width classes"] | None


def row_blocks(
    inference: Inference,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    fitted_sizes: Sequence[FittedSize],
    image_size: Size,
    has_probabilities: bool = False,
) -> Iterator[RowBlock]:
    """Yield the rows of an image from top to bottom, without gaps.

    Args:
      inference: How the network is applied. Arrays stay on one device: its `shard_fn`
        is not used.
      images: The image as the network takes it, one array for each ratio.
      fitted_sizes: Sizes of these.
      image_size: (height, width) of the original image.
      has_probabilities: Whether blocks hold probabilities.
    """
    views = [
        _View(inference, image, sizes, image_size, is_mirrored)
        for image, sizes in zip(images, fitted_sizes, strict=True)
        for is_mirrored in ((False, True) if inference.use_flip else (False,))
    ]
    tile = inference.tile_size(views[0].first_logits)
    for view in views:
        view.cut(tile)
    height, width = image_size
    finish = PROBABILITIES if has_probabilities else LABELS
    for row, top in enumerate(range(0, height, tile)):
        found = tiles(views, range(row, row + 1), -(-width // tile), tile, finish)
        parts = [[array[0] for array in arrays] for _, _, arrays in found]
        labels, *more = (
            np.concatenate(part, axis=1)[: height - top, :width]
            for part in zip(*parts, strict=True)
        )
        yield RowBlock(labels, *(more or [None]))


class _View:
    """One way to look at the image; keeps the logits of a few rows of windows."""

    def __init__(
        self,
        inference: Inference,
        image: UInt8[np.ndarray, "_ _ 3"],
        sizes: FittedSize,
        image_size: Size,
        is_mirrored: bool,
    ):
        """Compute the first row of windows, which tells the sizes of logits."""
        self._inference = inference
        self._image = image
        self._sizes = sizes
        self._image_size = image_size
        self._is_mirrored = is_mirrored
        self._windows = Windows.over(sizes.outer, inference.window, inference.stride)
        self._logits = {0: self._row_of_windows(0)}

    @property
    def first_logits(self) -> Array:
        """Logits of the first row of windows."""
        return self._logits[0]

    def cut(self, tile: int) -> None:
        """Make the matrices of all tiles."""
        shape = self.first_logits.shape
        self._small_height = shape[1]
        self._vertical, self._horizontal = (
            resampling.cut(axis, tile)
            for (axis,) in self._windows.axes(
                shape, [self._sizes], [self._image_size], self._is_mirrored
            )
        )
        self._dtype = scoring.score_type(self.first_logits)

    def rows(self, number: int) -> tuple[Array, Pair]:
        """Return the logits that a row of tiles needs, and how it uses them."""
        indices = self._vertical.indices[number]
        weights = self._vertical.weights[number]
        needed = indices[(weights != 0).any(axis=0)] // self._small_height
        numbers = range(needed.min(), needed.max() + 1)
        self._logits = {n: self._logits[n] for n in numbers if n in self._logits}
        for window in numbers:
            if window not in self._logits:
                self._logits[window] = self._row_of_windows(window)
        logits = [self._logits[window] for window in numbers]
        # Clipping changes only indices of weight 0, such as those that fill up a tile.
        first, end = numbers[0] * self._small_height, len(numbers) * self._small_height
        local = np.clip(indices - first, 0, end - 1)
        return (
            logits[0] if len(logits) == 1 else jnp.concatenate(logits, axis=1),
            (local[None], weights[None].astype(self._dtype)),
        )

    def columns(self, number: int) -> Pair:
        """Return how a column of tiles uses the logits."""
        weights = self._horizontal.weights[number, None].astype(self._dtype)
        return self._horizontal.indices[number, None], weights

    def _row_of_windows(self, number: int) -> Array:
        top = self._windows.starts[0][number]
        height, width = self._sizes.inner
        band = self._image[top : top + self._windows.size[0]]
        inputs = scoring.network_input(
            band[None],
            np.array([[height - top, width]], np.int32),
            mean=self._inference.mean,
            std=self._inference.std,
            is_mirrored=self._is_mirrored,
        )
        return self._windows.row(self._inference.logits_fn, inputs, 0)
