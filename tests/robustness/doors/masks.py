"""Masks, as training and check_dataset read them, of every convention."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segnext_jax.datasets.pairs import read_file
from segnext_jax.images.decode import check_labels, encode_label
from segnext_jax.images.masks import MaskReader
from tests.robustness import mutations, pictures
from tests.robustness.case import Case

_NUM_CLASSES = 4
_COLOURS = ((0, 0, 0), (128, 64, 128), (250, 170, 30), (1, 2, 3))
_READERS = {
    "ids": MaskReader(_NUM_CLASSES),
    "zero": MaskReader(_NUM_CLASSES, zero_is_ignore=True),
    "map": MaskReader(_NUM_CLASSES, id_map=((7, 0), (8, 1), (0, 255))),
    "colours": MaskReader(_NUM_CLASSES, "colours", _COLOURS),
}


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a mask."""
    name = str(rng.choice(list(_READERS)))
    what, data, is_wrong = _mask(rng)
    path = folder / "mask.png"
    path.write_bytes(data)

    def read() -> None:
        labels = _READERS[name].read(read_file(path), str(path))
        check_labels(labels, _NUM_CLASSES, 255, str(path))

    return Case(f"{what}, read as {name}", read, is_wrong)


def _mask(rng: np.random.Generator) -> tuple[str, bytes, bool]:
    size = tuple(rng.integers(1, 60, 2).tolist())
    labels = rng.integers(0, 256, size).astype(np.uint8) % _NUM_CLASSES
    encoded = encode_label(labels)
    choice = int(rng.integers(7))
    if choice == 0:
        return "cut", mutations.cut(rng, encoded), True
    if choice == 1:
        return "as it should be", encoded, False
    if choice == 2:  # With loss.
        file = io.BytesIO()
        file_format = str(rng.choice(["JPEG", "WEBP"]))
        Image.fromarray(labels * 60).save(file, file_format, quality=60)
        return f"lossy {file_format}", file.getvalue(), True
    if choice == 3:  # Numbers that are no ids.
        value = [-1, 256, 2**20, np.nan, 0.5, np.inf][int(rng.integers(6))]
        is_whole = np.isfinite(value) and value == int(value)
        numbers = labels.astype(np.int32 if is_whole else np.float32)
        numbers.flat[int(rng.integers(numbers.size))] = value
        return f"TIFF with {value}", cv2.imencode(".tif", numbers)[1].tobytes(), True
    if choice == 4:  # A class that there is not, in any convention.
        labels.flat[int(rng.integers(labels.size))] = int(rng.integers(9, 255))
        return "grey with another id", encode_label(labels), True
    if choice == 5:
        what, changed = mutations.mutate(rng, encoded)
        return f"PNG, {what}", changed, False
    what, _, data, is_wrong = pictures.malformed(rng)
    return what, data, is_wrong
