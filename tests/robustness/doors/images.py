"""Photographs, as training, check_dataset and predict decode them."""

from pathlib import Path

import numpy as np

from segnext_jax.datasets.pairs import read_file
from segnext_jax.images.decode import decode_image
from segnext_jax.images.decoders import exif_orientation, stored_mode
from segnext_jax.images.headers import read_header
from tests.robustness import pictures
from tests.robustness.case import Case


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a photograph."""
    what, suffix, data, is_wrong = pictures.malformed(rng)
    path = folder / f"photo.{suffix}"
    path.write_bytes(data)

    def decode() -> None:
        encoded = read_file(path)
        exif_orientation(encoded)
        stored_mode(encoded, read_header(encoded))
        image = decode_image(encoded, str(path))
        assert image.dtype == np.uint8 and image.shape[2] == 3 and image.size

    return Case(what, decode, is_wrong)
