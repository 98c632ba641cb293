"""What an exported file computes, beside the network that it was made from."""

import collections
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from segnext_jax.export.options import SIZE_MULTIPLE
from segnext_jax.export.program import Signature

NUM_TIMED = 5
# Beside the training's crop size and one image, where these are dynamic.
OTHER_SIZE = (96, 160)
OTHER_BATCH = 2
# Share of labels that may differ, or of the largest value. It is far above rounding in
# float32 (1e-6), and far below the effect of a wrong operation.
TOLERANCE = 1e-2

# Takes one line for the user.
Tell = Callable[[str], None]


class Comparison:
    """Images, and the output that a file must give for them.

    Attributes:
      images: Arrays as the function takes them.
      reference: The function whose output is wanted.
    """

    def __init__(
        self,
        reference: Callable[[Any], Any],
        images: Sequence[np.ndarray],
        *,
        is_label: bool,
        tolerance: float = TOLERANCE,
    ):
        """Bind images and reference.

        Args:
          reference: The network's own function of images, or a file's that equals it.
          images: Arrays as the function takes them.
          is_label: Whether class ids come out, a share of which may differ; or scores.
          tolerance: What may differ.
        """
        self.reference = reference
        self.images = images
        self._is_label = is_label
        self._tolerance = tolerance
        self._wanted: list[np.ndarray] | None = None

    def difference(self, function: Callable[[np.ndarray], Any]) -> float:
        """Return the share of labels that differ, or the largest difference of scores.

        Raises:
          ValueError: If a file does not compute what the network does.
        """
        if self._wanted is None:
            self._wanted = [np.asarray(self.reference(x)) for x in self.images]
        largest = 0.0
        for images, wanted in zip(self.images, self._wanted, strict=True):
            given = np.asarray(function(images))
            assert given.shape == wanted.shape and given.dtype == wanted.dtype
            if self._is_label:
                difference, scale = np.mean(given != wanted), 1.0
            else:
                difference, scale = np.abs(given - wanted).max(), np.abs(wanted).max()
            # Not "greater than": a NaN must not pass.
            if not difference <= self._tolerance * scale:
                raise ValueError(
                    "an exported program must compute what the network does: for "
                    f"images {images.shape} it differs by {difference:.3g} where "
                    f"{self._tolerance * scale:.3g} is allowed. Report it with the "
                    "versions of jax, onnx and onnxruntime."
                )
            largest = max(largest, float(difference))
        return largest

    def tell(self, difference: float, whose: str = "the network") -> str:
        """Say a difference in words."""
        counts = collections.Counter(
            "x".join(map(str, images.shape[:3])) for images in self.images
        )
        shapes = " and ".join(
            f"{count} of {shape}" if count > 1 else shape
            for shape, count in counts.items()
        )
        if self._is_label:
            same = f"{1 - difference:.4%}" if difference else "all"
            return f"{same} of the labels are {whose}'s, for images of {shapes}"
        return (
            f"differs from {whose} by {difference:.2g} at most, for images of {shapes}"
        )

    def describe(self, difference: float) -> dict[str, Any]:
        """Return a difference for the metadata."""
        name = "share_of_other_labels" if self._is_label else "largest_difference"
        return {name: difference, "compared_on": [list(x.shape) for x in self.images]}


def draw_images(signature: Signature, crop_size: tuple[int, int]) -> list[np.ndarray]:
    """Return one array of random images, or two of different shapes where these may be.

    Args:
      signature: What goes in.
      crop_size: (height, width) to begin with where any is allowed, in pixels.
    """
    return [signature.make_images(*shape) for shape in _shapes(signature, crop_size)]


def median_ms(function: Callable[[np.ndarray], Any], images: np.ndarray) -> float:
    """Return the median time of calls in milliseconds, after one that is not timed."""
    jax.block_until_ready(function(images))
    times = []
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        jax.block_until_ready(function(images))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _shapes(
    signature: Signature, crop_size: tuple[int, int]
) -> list[tuple[int, tuple[int, int]]]:
    height, width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in crop_size)
    shapes = [(signature.batch or 1, signature.size or (height, width))]
    if signature.batch is None or signature.size is None:
        shapes.append((signature.batch or OTHER_BATCH, signature.size or OTHER_SIZE))
    return shapes


def tell_file(tell: Tell, path: pathlib.Path, seconds: float) -> None:
    """Say what was written, and how long that took."""
    size = path.stat().st_size / 1e6
    tell(f"{path.name}: {size:.1f} MB, made in {seconds:.1f} s")
