"""One image of a caller: a path, a Pillow image, or an array."""

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from segnext_jax.cli import storage
from segnext_jax.datasets.pairs import read_file
from segnext_jax.images.decode import decode_image
from segnext_jax.images.decoders import from_pillow


def read_image(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Return an RGB array of a path, a Pillow image, or the array itself.

    Raises:
      OSError: If the file does not exist or cannot be opened.
      ValueError: If ``image`` is none of these, or the file is no image.
    """
    if isinstance(image, str | os.PathLike):
        path = storage.as_path(image)
        if storage.is_bucket(path):
            return decode_image(path.read_bytes(), str(path))
        if not path.exists():
            raise FileNotFoundError(
                f"an image must be a file: {path} does not exist. The current folder "
                f"is {pathlib.Path.cwd()}."
            )
        return decode_image(read_file(path), str(path))
    if hasattr(image, "convert"):
        return from_pillow(image)
    array = np.asarray(image)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        if array.size:
            return array
    raise ValueError(
        "an image must be a file's path, a Pillow image, or a uint8 array [height, "
        f"width, 3] in RGB, 0..255: got {array.dtype} {list(array.shape)}."
        f"{_array_advice(array)}"
    )


def _array_advice(array: np.ndarray) -> str:
    """Return what to do with an array that is almost an image."""
    advice = []
    if array.ndim == 2:
        advice.append("Repeat a grey image: np.stack([image] * 3, axis=-1).")
    elif array.ndim == 3 and array.shape[2] == 1:
        advice.append("Repeat a grey image: image.repeat(3, axis=-1).")
    elif array.ndim == 3 and array.shape[2] == 4:
        advice.append("Drop the alpha channel: image[..., :3].")
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        advice.append("Put the channels last: image.transpose(1, 2, 0).")
    if np.issubdtype(array.dtype, np.floating):
        advice.append(
            "Scale floats in 0..1: (image * 255).round().astype(np.uint8); those in "
            "0..255 are rounded alone."
        )
    elif array.dtype != np.uint8:
        advice.append("Bring its values to 0..255: image.astype(np.uint8).")
    return "".join(f" {sentence}" for sentence in advice)
