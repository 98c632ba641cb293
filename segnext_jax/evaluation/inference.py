"""From fitted images to labels or probabilities of the original images.

A view is an image at one scale, mirrored or not, seen whole or in sliding windows. Each
view gives logits, and a matrix for each axis that resamples them (`resampling`). One
program then serves all kinds of views. For a tile of the original image it resamples
the logits of each view, averages the softmax scores where there are several views, and
takes the best class. The device never holds the scores of a whole image of original
size.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from segnext_jax.evaluation import resampling, scoring
from segnext_jax.evaluation.batch import Batch, FittedSize, Size
from segnext_jax.evaluation.windows import LogitsFn, Windows
from segnext_jax.ops.upsampled import whole_factor

# Tiles that the device computes ahead of the one that the host fetches. More would only
# take memory.
_NUM_TILES_AHEAD = 2
# Logits are eight times coarser than pixels: tiles of 32 pixels share few logits.
_TILE_MULTIPLE_PX = 32


# Indices and weights of the logits that a tile needs along one axis.
Pair = tuple[Any, Any]


class Finish(NamedTuple):
    """Functions that return arrays of a tile, [batch, tile, tile] or with more axes.

    Attributes:
      of_view: Takes logits and matrices of the only view; see `scoring.resample`.
      of_scores: Takes the mean probabilities of several views.
    """

    of_view: Callable[[Array, Any, Any], tuple[Array, ...]]
    of_scores: Callable[[Array], tuple[Array, ...]]


LABELS = Finish(
    lambda *view: (scoring.resampled_labels(*view),),
    lambda scores: (scoring.best_labels(scores),),
)


def _labels_and_probabilities(*view: Any) -> tuple[Array, Array]:
    scores = scoring.resample(*view)
    return scoring.best_labels(scores), scoring.softmax(scores)


PROBABILITIES = Finish(
    _labels_and_probabilities, lambda scores: (scoring.best_labels(scores), scores)
)


def tiles(
    views: Sequence[Any],
    rows: range,
    num_columns: int,
    tile_size: int,
    finish: Finish,
) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """Yield (top, left, arrays) of each tile, row by row.

    Args:
      views: Each returns, for a row of tiles, ``rows(number)``: logits and the vertical
        matrix; rows are asked for from top to bottom. ``columns(number)``: the
        horizontal matrix.
      rows: Numbers of the rows of tiles.
      num_columns: Number of tiles in a row.
      tile_size: Side of a tile in pixels.
      finish: Makes the arrays.
    """
    columns = [[view.columns(n) for view in views] for n in range(num_columns)]
    pending: collections.deque = collections.deque()
    for row in rows:
        vertical = [view.rows(row) for view in views]
        for column, horizontal in enumerate(columns):
            pairs = zip(vertical, horizontal, strict=True)
            arguments = [(logits, down, right) for (logits, down), right in pairs]
            arrays = (
                finish.of_view(*arguments[0])
                if len(arguments) == 1
                else finish.of_scores(scoring.mean_probabilities(arguments))
            )
            pending.append((row * tile_size, column * tile_size, arrays))
            if len(pending) > _NUM_TILES_AHEAD:
                yield _fetch(*pending.popleft())
    while pending:
        yield _fetch(*pending.popleft())


class _PlacedView(NamedTuple):
    """A view for `tiles`, whose logits are all there."""

    logits: Array
    vertical: resampling.Tiles
    horizontal: resampling.Tiles
    place: Callable[[resampling.Tiles, int], Pair]

    def rows(self, number: int) -> tuple[Array, Pair]:
        return self.logits, self.place(self.vertical, number)

    def columns(self, number: int) -> Pair:
        return self.place(self.horizontal, number)


class _View(NamedTuple):
    """Logits of one view of a batch, and how they lie on the original images.

    Attributes:
      logits: The logits of all windows, side by side.
      axes: Vertical and horizontal axes of all rows of the batch.
    """

    logits: Array
    axes: tuple[list[resampling.Axis], list[resampling.Axis]]


@dataclasses.dataclass(frozen=True)
class Inference:
    """How a network is applied to images of any size.

    Attributes:
      logits_fn: The network.
      mean: RGB mean in grey levels.
      std: RGB standard deviation in grey levels.
      window: (height, width) of the windows that the network sees; None: whole images.
      stride: Distance of the windows; see `resampling.window_starts`.
      use_flip: Whether each image is seen mirrored, too.
      tile_bytes: Size of the scores of one tile on one device.
      shard_fn: Puts named arrays whose first dimension is the batch on the devices.
    """

    logits_fn: LogitsFn
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window: Size | None = None
    stride: Size | None = None
    use_flip: bool = False
    tile_bytes: int = 8 * 2**20
    shard_fn: Callable[[dict[str, np.ndarray]], dict[str, Any]] = lambda arrays: arrays

    def __post_init__(self) -> None:
        """Check windows and stride.

        Raises:
          ValueError: If windows leave gaps, or have no stride.
        """
        if self.window is None:
            return
        if self.stride is None or any(
            stride > window
            for stride, window in zip(self.stride, self.window, strict=True)
        ):
            raise ValueError(
                "slide stride must not exceed the window, or pixels are never "
                f"predicted: got stride {self.stride}, window {self.window}. Set "
                f"config.evaluation.stride to at most {self.window}."
            )

    @classmethod
    def from_config(
        cls,
        config: Any,
        logits_fn: LogitsFn,
        shard_fn: Callable[[dict[str, np.ndarray]], dict[str, Any]] | None = None,
    ) -> "Inference":
        """Return the inference that a configuration asks for."""
        options = config.evaluation
        is_slide = options.mode == "slide"
        return cls(
            logits_fn=logits_fn,
            mean=config.data.mean,
            std=config.data.std,
            window=options.window if is_slide else None,
            stride=options.stride if is_slide else None,
            use_flip=options.flip,
            tile_bytes=options.tile_mebibytes * 2**20,
            **({} if shard_fn is None else {"shard_fn": shard_fn}),
        )

    def label_maps(self, batch: Batch) -> list[UInt8[np.ndarray, "_ _"]]:
        """Return the best class of each pixel of this process's images.

        Classes are compared by logits where there is one view, by mean probabilities
        where there are several.
        """
        views = self._views(batch)
        factor = _enlargement(views)
        if factor:
            labels = local_rows(scoring.enlarged_labels(views[0].logits, factor))
            sizes = [batch.image_sizes[row] for row in batch.rows]
            return [
                np.ascontiguousarray(labels[place, :height, :width])
                for place, (height, width) in enumerate(sizes)
            ]
        return [labels for (labels,) in self._assemble(batch, views, LABELS)]

    def probability_maps(
        self, batch: Batch
    ) -> list[tuple[UInt8[np.ndarray, "_ _"], Float[np.ndarray, "_ _ classes"]]]:
        """Return `label_maps`, and with each the probabilities of all classes."""
        return self._assemble(batch, self._views(batch), PROBABILITIES)

    def _assemble(self, batch: Batch, views: list[_View], finish: Finish) -> list:
        """Compute all tiles, and paste them into maps of the original sizes."""
        maps: list = []
        sizes = [batch.image_sizes[row] for row in batch.rows]
        place = functools.partial(
            self._place, dtype=scoring.score_type(views[0].logits)
        )
        placed = [
            _PlacedView(view.logits, *self._matrices(view, batch), place)
            for view in views
        ]
        _, num_rows, size, _ = placed[0].vertical.weights.shape
        num_columns = placed[0].horizontal.weights.shape[1]
        for top, left, arrays in tiles(
            placed, range(num_rows), num_columns, size, finish
        ):
            if not maps:
                maps = [
                    tuple(np.empty((*size, *a.shape[3:]), a.dtype) for a in arrays)
                    for size in sizes
                ]
            for place, (height, width) in enumerate(sizes):
                # Where another image of the batch is larger, this image may end before
                # the tile begins.
                rows, columns = max(height - top, 0), max(width - left, 0)
                for target, array in zip(maps[place], arrays, strict=True):
                    tile = array[place, :rows, :columns]
                    bottom, right = top + tile.shape[0], left + tile.shape[1]
                    target[top:bottom, left:right] = tile
        return maps

    def _place(self, tiles: resampling.Tiles, number: int, dtype: Any) -> Pair:
        """Put the matrix of one row or column of tiles on the devices."""
        arrays = {
            "indices": tiles.indices[:, number],
            "weights": tiles.weights[:, number].astype(dtype),
        }
        arrays = self.shard_fn(arrays)
        return arrays["indices"], arrays["weights"]

    def _views(self, batch: Batch) -> list[_View]:
        views = []
        for images, fitted in zip(batch.images, batch.fitted_sizes, strict=True):
            inner = np.array([fitted[row].inner for row in batch.rows], np.int32)
            arrays = self.shard_fn({"images": images, "inner": inner})
            for is_mirrored in (False, True) if self.use_flip else (False,):
                inputs = scoring.network_input(
                    arrays["images"],
                    arrays["inner"],
                    mean=self.mean,
                    std=self.std,
                    is_mirrored=is_mirrored,
                )
                views.append(self._view(inputs, batch, fitted, is_mirrored))
        return views

    def _view(
        self,
        inputs: Array,
        batch: Batch,
        fitted: Sequence[FittedSize],
        is_mirrored: bool,
    ) -> _View:
        height, width = inputs.shape[1:3]
        windows = Windows.over((height, width), self.window, self.stride)
        rows = [windows.row(self.logits_fn, inputs, top) for top in windows.starts[0]]
        logits = rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)
        return _View(
            logits,
            windows.axes(rows[0].shape, fitted, batch.image_sizes, is_mirrored),
        )

    def _matrices(
        self, view: _View, batch: Batch
    ) -> tuple[resampling.Tiles, resampling.Tiles]:
        """Return the matrices of both axes of a view, for this process's rows."""
        tile_size = self.tile_size(view.logits)
        vertical, horizontal = (
            resampling.stack(
                [resampling.cut(axis, tile_size) for axis in axes], batch.rows
            )
            for axes in view.axes
        )
        return vertical, horizontal

    def tile_size(self, logits: Array) -> int:
        """Return the side of tiles: the largest multiple of 32 that fits the bytes."""
        rows = logits.sharding.shard_shape(logits.shape)[0]
        bytes_per_pixel = rows * logits.shape[-1] * scoring.score_type(logits).itemsize
        side = math.isqrt(self.tile_bytes // bytes_per_pixel)
        return max(side // _TILE_MULTIPLE_PX, 1) * _TILE_MULTIPLE_PX


def _enlargement(views: list[_View]) -> int | None:
    """Return the factor of a plain enlargement of logits to the images, or None.

    None if there are several views, or if windows, a resize or a factor that is not
    whole lie between logits and images.
    """
    if len(views) > 1:
        return None
    (view,) = views
    if not all(axis.is_enlarged_alone for axes in view.axes for axis in axes):
        return None
    outer = view.axes[0][0].outer, view.axes[1][0].outer
    return whole_factor(view.logits.shape[1:3], outer)


def _fetch(
    top: int, left: int, arrays: tuple[Array, ...]
) -> tuple[int, int, list[np.ndarray]]:
    return top, left, [local_rows(array) for array in arrays]


def local_rows(array: Array) -> np.ndarray:
    """Return this process's rows of an array that is spread over its first axis."""
    shards = {
        shard.index[0].start or 0: shard.data for shard in array.addressable_shards
    }
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
