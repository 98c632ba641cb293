"""Files that people drop on the demo's page, under names of their choice."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segnext_jax.demo import page
from segnext_jax.evaluation.row_blocks import RowBlock
from tests.robustness import pictures
from tests.robustness.case import Case

_NAMES = ("photo", "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "é")


class _Network:
    """Stands in for a network, which sees what has been decoded."""

    def input_sizes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Take any size."""
        return (size,)

    def predict_rows(
        self, image: np.ndarray, has_probabilities: bool
    ) -> Iterator[RowBlock]:
        """Give one class to an image."""
        assert has_probabilities
        labels = np.zeros(image.shape[:2], np.uint8)
        yield RowBlock(labels, np.ones((*labels.shape, 1), np.float32))


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write an upload."""
    what, suffix, data, is_wrong = pictures.malformed(rng)
    name = f"{rng.choice(_NAMES)}.{suffix}"

    def upload() -> None:
        text = json.dumps(page.answer(_Network(), data, name))
        assert str(folder) not in text, "the page shows where files lie"

    return Case(f"{name}: {what}", upload, is_wrong)
