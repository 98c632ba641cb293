"""The files of the page, what it must know of a network, and its answers.

`segnext-jax demo` serves the page; `segnext-jax export --format=web` writes the same
page beside a network that the browser runs.
"""

import base64
import pathlib
import time
import zlib
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.images.decode import decode_image
from segnext_jax.predict.files import encode_jpeg
from segnext_jax.predict.predictor import Predictor

# What a screen shows, and canvases of all browsers hold; more would only be sent.
MAX_SIDE_PX = 4096
# Probabilities change slowly: they are interpolated from 1/8 of the network's input.
MAX_CERTAINTY_SIDE_PX = 1024


def read_files() -> dict[str, bytes]:
    """Return the contents of the page's files by name."""
    folder = pathlib.Path(__file__).parent
    return {
        "index.html": (folder / "result_page.html").read_bytes(),
        "result_page.css": (folder / "result_page.css").read_bytes(),
        "result_page.js": (folder / "result_page.js").read_bytes(),
    }


def about(predictor: Predictor, checkpoint: str) -> dict[str, Any]:
    """Return what metadata.json says of a network: its name, its score, its classes.

    Args:
      predictor: The network.
      checkpoint: Where the weights come from.
    """
    config, spec = predictor.config, predictor.spec
    folder = pathlib.PurePath(config.data.folder).name if spec.name == FOLDER else ""
    return {
        "network": {
            "name": "SegNeXt",
            "variant": config.model.variant,
            "checkpoint": checkpoint,
            "step": predictor.step,
            "mIoU": predictor.score,
        },
        "dataset": folder or spec.name,
        "classes": list(spec.classes),
        "colours": [list(colour) for colour in spec.colours],
    }


def answer(predictor: Predictor, encoded: bytes, name: str) -> dict[str, Any]:
    """Return what the page shows of a photograph; plain values.

    Args:
      predictor: The network.
      encoded: Contents of an image file.
      name: Name of the file, for error messages.

    Raises:
      ValueError: If the file cannot be decoded, or the image is too large for the
        network.
    """
    start = time.perf_counter()
    image = decode_image(encoded, name)
    predictor.input_sizes(image.shape[:2])  # Refuses images that are too large.
    rows, certain_rows = [], []
    # In blocks: the probabilities of a whole photograph may take gigabytes.
    for block in predictor.predict_rows(image, has_probabilities=True):
        assert block.probabilities is not None  # They have been asked for.
        rows.append(block.labels)
        best = np.rint(255 * block.probabilities.max(axis=-1))
        certain_rows.append(best.astype(np.uint8))
    labels, certainty = np.concatenate(rows), np.concatenate(certain_rows)
    image = _reduced(image, MAX_SIDE_PX, cv2.INTER_AREA)
    labels = _reduced(labels, MAX_SIDE_PX, cv2.INTER_NEAREST_EXACT)
    certainty = _reduced(certainty, MAX_CERTAINTY_SIDE_PX, cv2.INTER_AREA)
    return {
        "photograph": _text(encode_jpeg(image)),
        "labels": _text(zlib.compress(labels.tobytes())),
        "width": labels.shape[1],
        "height": labels.shape[0],
        "certainty": {
            "values": _text(zlib.compress(certainty.tobytes())),
            "width": certainty.shape[1],
            "height": certainty.shape[0],
        },
        "seconds": time.perf_counter() - start,
    }


def _reduced(
    image: UInt8[np.ndarray, "..."], max_side: int, interpolation: int
) -> UInt8[np.ndarray, "..."]:
    factor = max_side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=interpolation)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
