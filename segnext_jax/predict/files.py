"""What a prediction leaves on the disk: label map, overlay, comparison, probabilities.

Files take blocks of rows, so that probabilities of a very large image are never whole
in memory; pictures for people are drawn at a reduced size where the image is large. All
appear under their name when they are complete.
"""

import contextlib
import dataclasses
import io
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from segnext_jax.cli.whole_files import whole_file
from segnext_jax.datasets import DatasetSpec
from segnext_jax.images import pictures
from segnext_jax.images.label_png import write_label_png
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS

_JPEG_QUALITY = 92
# JPEG ends at 65,500, and two stand side by side.
_MAX_PICTURE_SIDE_PX = 32_000
# Level of zlib: probabilities shrink to a third, and hardly further at ten times the
# cost.
_PROBABILITIES_LEVEL = 1
PROBABILITY_TYPES = ("float16", "float32")


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """How files are written.

    Attributes:
      opacity: Weight of the class colours in pictures, in [0, 1].
      max_picture_side: Pictures for people are reduced by a whole factor until their
        longer side is no more, in pixels.
      probability_type: "float16" or "float32".
    """

    opacity: float = 0.5
    max_picture_side: int = 4096
    probability_type: str = "float16"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
          ValueError: If an option is impossible.
        """
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must lie in [0, 1]: got {self.opacity}.")
        if not 1 <= self.max_picture_side <= _MAX_PICTURE_SIDE_PX:
            raise ValueError(
                f"the longest side of pictures must lie in [1, {_MAX_PICTURE_SIDE_PX}] "
                f"pixels: got {self.max_picture_side}."
            )
        if self.probability_type not in PROBABILITY_TYPES:
            raise ValueError(
                f"probabilities must be {' or '.join(PROBABILITY_TYPES)}: got "
                f"{self.probability_type!r}."
            )


@runtime_checkable
class PredictionFile(Protocol):
    """Takes the rows of one image from top to bottom."""

    def write(
        self,
        labels: UInt8[np.ndarray, "rows width"],
        probabilities: Float[np.ndarray, "rows width classes"] | None,
    ) -> None:
        """Take the next rows."""
        ...

    def close(self) -> None:
        """Write what is left, once all rows are there."""
        ...


class LabelFile:
    """A PNG of ids, written when all rows are there."""

    def __init__(
        self,
        file: io.BufferedIOBase,
        size: tuple[int, int],
        colours: tuple[tuple[int, int, int], ...] | None,
        id_of: UInt8[np.ndarray, "256"] | None = None,
    ):
        """Begin a file.

        Args:
          file: Where to write.
          size: (height, width) of the image.
          colours: Colours of the ids that are written; None: a grey file.
          id_of: What is written for each train id; None: the train id.
        """
        self._file = file
        self._colours = colours
        self._id_of = id_of
        self._labels = np.empty(size, np.uint8)
        self._top = 0

    def write(self, labels: Any, probabilities: Any) -> None:
        """Take the next rows."""
        bottom = self._top + len(labels)
        ids = labels if self._id_of is None else self._id_of[labels]
        self._labels[self._top : bottom] = ids
        self._top = bottom

    def close(self) -> None:
        """Write the PNG."""
        assert self._top == len(self._labels)
        write_label_png(self._file, self._labels, self._colours)


class PictureFile:
    """A JPEG for people, drawn when all rows are there."""

    def __init__(
        self,
        file: io.BufferedIOBase,
        image: UInt8[np.ndarray, "height width 3"],
        draw_fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
        max_side: int,
    ):
        """Begin a picture.

        Args:
          file: Where to write.
          image: The photograph, RGB.
          draw_fn: Makes the picture of photograph and labels.
          max_side: See `FileOptions.max_picture_side`.
        """
        self._file = file
        self._image = image
        self._draw_fn = draw_fn
        self._step = -(-max(image.shape[:2]) // max_side)
        self._rows: list[np.ndarray] = []
        self._top = 0

    def write(self, labels: Any, probabilities: Any) -> None:
        """Take the next rows, of which only the picture's are kept."""
        first = -self._top % self._step
        self._rows.append(labels[first :: self._step, :: self._step].copy())
        self._top += labels.shape[0]

    def close(self) -> None:
        """Draw and write the picture."""
        labels = np.concatenate(self._rows)
        image = self._image
        if self._step > 1:
            size = labels.shape[::-1]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self._file.write(encode_jpeg(self._draw_fn(image, labels)))


class ProbabilitiesFile:
    """An .npz of `probabilities` [height, width, classes] and the `classes`' names."""

    def __init__(
        self,
        file: io.BufferedIOBase,
        size: tuple[int, int],
        classes: tuple[str, ...],
        dtype: str,
    ):
        """Write the names and the header of the array."""
        self._archive = zipfile.ZipFile(
            file, "w", zipfile.ZIP_DEFLATED, compresslevel=_PROBABILITIES_LEVEL
        )
        with self._archive.open("classes.npy", "w") as member:
            np.lib.format.write_array(member, np.array(classes), allow_pickle=False)
        self._dtype = np.dtype(dtype)
        self._member = self._archive.open("probabilities.npy", "w", force_zip64=True)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (*size, len(classes)),
        }
        np.lib.format.write_array_header_1_0(self._member, header)

    def write(self, labels: Any, probabilities: Any) -> None:
        """Take the next rows."""
        assert probabilities is not None
        self._member.write(probabilities.astype(self._dtype).tobytes())

    def close(self) -> None:
        """Write the archive's directory."""
        self._member.close()
        self._archive.close()


# What can be written of every prediction, and with which suffix.
SUFFIXES = {
    "labels": ".png",
    "overlay": ".jpg",
    "side_by_side": ".jpg",
    "probabilities": ".npz",
}


def begin(
    kind: str,
    file: io.BufferedIOBase,
    image: UInt8[np.ndarray, "height width 3"],
    spec: DatasetSpec,
    options: FileOptions,
) -> PredictionFile:
    """Begin a file of a prediction.

    Args:
      kind: A key of `SUFFIXES` or of `benchmark_formats.FORMATS`.
      file: Where to write.
      image: The photograph, RGB.
      spec: Classes and colours.
      options: How.
    """
    height, width = image.shape[:2]
    if kind in BENCHMARK_FORMATS:
        benchmark = BENCHMARK_FORMATS[kind]
        colours = spec.colours if benchmark.has_palette else None
        return LabelFile(file, (height, width), colours, benchmark.id_of)
    if kind == "labels":
        return LabelFile(file, (height, width), spec.colours)
    if kind == "probabilities":
        return ProbabilitiesFile(
            file, (height, width), spec.classes, options.probability_type
        )
    draw_fn = picture_fn(kind, spec, options.opacity)
    return PictureFile(file, image, draw_fn, options.max_picture_side)


def picture_fn(
    kind: str, spec: DatasetSpec, opacity: float, all_classes: bool = False
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function that draws a picture of photograph and labels.

    Args:
      kind: "overlay" or "side_by_side".
      spec: Classes and colours.
      opacity: Weight of the class colours in [0, 1].
      all_classes: Whether the legend names all classes, not only those that occur:
        its size is then the same for all images of a size.
    """

    def draw_overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return pictures.overlay(image, labels, spec.colours, opacity)

    def draw_side_by_side(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return pictures.side_by_side(
            image, None, labels, spec, opacity, all_classes=all_classes
        )

    return {"overlay": draw_overlay, "side_by_side": draw_side_by_side}[kind]


def encode_jpeg(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Return an RGB picture as the contents of a JPEG file, colours at full size."""
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY),
        # The colours of an overlay have sharp borders, and they are what matters.
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    is_encoded, encoded = cv2.imencode(".jpg", picture[..., ::-1], options)
    assert is_encoded
    return encoded.tobytes()


@contextlib.contextmanager
def open_whole(path: pathlib.Path) -> Iterator[io.BufferedIOBase]:
    """Open a file to write, which is whole or not there; see `whole_file`."""
    with whole_file(path) as partial, partial.open("w+b") as file:
        yield file
