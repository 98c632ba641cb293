"""The images with the largest share of wrong pixels."""

import re

import numpy as np

from segnext_jax.datasets.class_table import ClassTable
from segnext_jax.evaluation.worst import WorstImages

SPEC = ClassTable(("soil", "leaf", "sky")).spec("leaves")


def test_ignored_pixels_do_not_count_and_the_worst_comes_first(tmp_path):
    worst = WorstImages(2, SPEC)
    labels = np.zeros((10, 16), np.uint8)
    labels[:, :8] = 255
    image = np.full((20, 32, 3), 90, np.uint8)
    for name, num_wrong in (("a", 20), ("b", 8), ("x/<c>", 40), ("d", 20)):
        prediction = np.ones((10, 16), np.uint8)
        prediction[:, 8:] = np.arange(80).reshape(10, 8) < num_wrong
        worst.add(name, image, labels, prediction)
        image[:] = 0  # The batch's memory is used again.
    worst.write(tmp_path / "worst")
    page = (tmp_path / "worst" / "index.html").read_text()
    assert "The worst 2 of 4 images" in page
    lines = re.findall(r"<p>(.*?) of the labelled pixels are wrong, (.*?)<br>", page)
    assert lines == [
        ("1. x/&lt;c&gt;: 50.0%", "mIoU 25.0"),
        ("2. a: 25.0%", "mIoU 37.5"),
    ]
    files = sorted(path.name for path in (tmp_path / "worst").glob("*.png"))
    assert files == ["01_x__c_.png", "02_a.png"]
