"""Where a pixel of the original image finds its scores: one sparse matrix per axis.

Five steps lead from the network's logits to the scores of the original image: bilinear
resize to the window, mean over the windows that cover a pixel, cutting off the padding,
bilinear resize to the original image, mirroring back. Each step is linear and treats
rows and columns apart, so that all steps together are one matrix for each axis:

    scores[y, x] = sum over i, k of  rows[y, i] * columns[x, k] * logits[i, k]

with the logits of all windows laid side by side. A row of such a matrix has few entries
(two for each window and resize). The matrices of two images differ in numbers, not in
shape, so that XLA compiles the program that applies them once for all sizes of images.
The official code takes the steps one after the other and sums in another order: the
results are equal up to rounding.

Source: ``slide_inference`` and ``whole_inference`` in
``mmseg/models/segmentors/encoder_decoder.py`` of SegNeXt@c87bcae.
"""

import dataclasses
import functools

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from segnext_jax.ops.resize import interpolation_taps


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of an image and of its way through the network, in pixels.

    Attributes:
      image: Length in the original image.
      inner: Length of the resized image.
      outer: Length of the network's input, which holds the image at its start.
      window: Length of a window on the input; at most ``outer``.
      starts: Where the windows begin.
      small: Length of the logits of a window.
      is_mirrored: Whether the network has seen the image mirrored along this axis.
    """

    image: int
    inner: int
    outer: int
    window: int
    starts: tuple[int, ...]
    small: int
    is_mirrored: bool = False

    @property
    def is_enlarged_alone(self) -> bool:
        """Whether logits are enlarged to the input, of which the image is a part."""
        is_resized = self.image != self.inner
        return not (is_resized or self.is_mirrored or self.window != self.outer)

    def matrix(self) -> scipy.sparse.csr_array:
        """Return the weights [image, windows * small] of the module's equation."""
        num_columns = len(self.starts) * self.small
        to_window = _interpolation(self.small, self.window).tocoo()
        rows, columns, values = [], [], []
        for number, start in enumerate(self.starts):
            rows.append(to_window.row + start)
            columns.append(to_window.col + number * self.small)
            values.append(to_window.data)
        summed = scipy.sparse.coo_array(
            (
                np.concatenate(values),
                (np.concatenate(rows), np.concatenate(columns)),
            ),
            shape=(self.outer, num_columns),
        ).tocsr()
        covered = np.zeros(self.outer)
        for start in self.starts:
            covered[start : start + self.window] += 1
        mean = scipy.sparse.diags_array(1 / covered, format="csr") @ summed
        matrix = mean[: self.inner]
        if self.image != self.inner:
            matrix = _interpolation(self.inner, self.image) @ matrix
        return matrix[::-1] if self.is_mirrored else matrix


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Return where windows begin that cover an axis; the last is shifted back inside.

    An axis that is shorter than the window has one window, of its own length.

    >>> window_starts(2048, window=1024, stride=768)
    (0, 768, 1024)
    """
    window = min(window, length)
    count = -(-(length - window) // stride) + 1
    return tuple(min(i * stride, length - window) for i in range(count))


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Axis matrices cut into tiles of equal height, without their empty columns.

    The tiles of one image, or of the rows of a batch (`stack`). For a batch the first
    dimension is the row.

    Attributes:
      indices: For each tile the columns that it needs, filled up with 0.
      weights: Their weights; 0 where filled up, and below the image's end.
    """

    indices: Int[np.ndarray, "*rows tiles needed"]
    weights: Float[np.ndarray, "*rows tiles tile needed"]


# Entries take about 100 KB; a batch asks for each of its sizes again.
@functools.lru_cache(maxsize=256)
def cut(axis: Axis, tile_size: int) -> Tiles:
    """Cut the matrix of an axis; the number of needed columns is a power of two.

    Powers of two keep the number of compiled programs small, since each number of
    columns needs a program of its own. A tile of 128 pixels at eight times the logits'
    size needs 19 columns, and gets 32.
    """
    matrix = axis.matrix()
    parts = [
        matrix[start : start + tile_size].tocoo()
        for start in range(0, axis.image, tile_size)
    ]
    needed = [np.unique(part.col) for part in parts]
    num_needed = 1 << (max(len(columns) for columns in needed) - 1).bit_length()
    indices = np.zeros((len(parts), num_needed), np.int32)
    weights = np.zeros((len(parts), tile_size, num_needed))
    for number, (part, columns) in enumerate(zip(parts, needed, strict=True)):
        indices[number, : len(columns)] = columns
        place = np.searchsorted(columns, part.col)
        np.add.at(weights[number], (part.row, place), part.data)
    return Tiles(indices, weights)


def stack(tiles: list[Tiles], rows: range) -> Tiles:
    """Join the tiles of a batch's rows, filled up to the largest of all of them.

    Args:
      tiles: The tiles of all rows of the batch.
      rows: The rows to return.

    Returns:
      Indices [rows, tiles, needed] and weights [rows, tiles, tile, needed].
    """
    shape = np.max([t.weights.shape for t in tiles], axis=0)
    num_tiles, tile_size, num_needed = (int(length) for length in shape)
    indices = np.zeros((len(rows), num_tiles, num_needed), np.int32)
    weights = np.zeros((len(rows), num_tiles, tile_size, num_needed))
    for place, row in enumerate(rows):
        count, _, needed = tiles[row].weights.shape
        indices[place, :count, :needed] = tiles[row].indices
        weights[place, :count, :, :needed] = tiles[row].weights
    return Tiles(indices, weights)


def _interpolation(old: int, new: int) -> scipy.sparse.csr_array:
    """Return the matrix [new, old] of the bilinear resize along one axis."""
    low, high, fraction = interpolation_taps(old, new)
    rows = np.arange(new)
    entries = np.concatenate([1 - fraction, fraction])
    places = np.concatenate([rows, rows]), np.concatenate([low, high])
    return scipy.sparse.csr_array((entries, places), shape=(new, old))
