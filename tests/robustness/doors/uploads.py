"""Files that people drop on the demo's page, under names of their choice."""

import html.parser
from pathlib import Path

import numpy as np

from segnext_jax.datasets import DatasetSpec
from segnext_jax.demo import result_page
from segnext_jax.predict.prediction import Prediction
from segnext_jax.predict.predictor import read_image
from tests.robustness import pictures
from tests.robustness.case import Case

_NAMES = ("photo", "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "é")
_SPEC = DatasetSpec("tiny", ("<b>road</b>", "sky"), ((1, 2, 3), (4, 5, 6)))
_TAGS = set("div img canvas output label input ul li button span b p".split())


class _Network:
    """Stands in for a network, which sees what has been decoded."""

    def predict(self, path: str) -> Prediction:
        """Give one class to an image."""
        image = read_image(path)
        labels = np.zeros(image.shape[:2], np.uint8)
        return Prediction(image, labels, _SPEC, lambda: np.zeros(0))


class _Tags(html.parser.HTMLParser):
    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Allow the page's own elements only."""
        names = [name for name, _ in attrs if name.startswith("on")]
        assert tag in _TAGS and not names, f"markup of the upload: {tag} {names}"


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write an upload."""
    what, suffix, data, is_wrong = pictures.malformed(rng)
    name = str(rng.choice(_NAMES)).replace("/", "_")
    path = folder / f"{name}.{suffix}"
    path.write_bytes(data)

    def upload() -> None:
        text = result_page.answer(_Network(), str(path))
        parser = _Tags()
        parser.feed(text)
        assert str(folder) not in text, "the page shows where uploads lie"
        if "segnext-fault" in text:
            raise SystemExit("refused in the page")

    return Case(f"{name}: {what}", upload, is_wrong)
