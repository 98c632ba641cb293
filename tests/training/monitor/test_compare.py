"""Runs beside each other: a picture, a page, and what cannot be compared."""

import json
import re

import cv2
import numpy as np
import pytest

from segnext_jax import __main__ as program
from segnext_jax import config as config_lib
from segnext_jax.cli import command


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in a rate; the second ends in half a line."""
    folders = []
    for name, rate in (("slow", 1e-4), ("fa<st", 1e-3)):
        folder = tmp_path / name
        folder.mkdir()
        config = config_lib.load("shapes_tiny", [f"optimizer.learning_rate={rate}"])
        (folder / "config.json").write_text(config_lib.to_json(config))
        lines = []
        for step in (100, 200, 300):
            lines.append({"step": step, "loss": 100 * rate / step})
            iou = {"disc": rate * step, "ri<ng": None}
            lines.append({"step": step, "mIoU": 0.4 - rate * step / 10, "IoU": iou})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        folders.append(folder)
    with (folders[1] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40')
    return folders


def compare(runs, output) -> int:
    arguments = ["compare", *map(str, runs), f"--output={output}"]
    return command.run(program.dispatch, arguments)


def test_page_holds_curves_differences_and_no_address(runs, tmp_path):
    assert compare(runs, tmp_path / "out") == 0
    page = (tmp_path / "out" / "comparison.html").read_text()
    titles = re.findall(r'<svg .*>\n<text[^>]*">(.*?)</text>', page)
    assert titles == ["loss", "mIoU", "IoU disc"]
    assert page.count("<polyline") - page.count('class="grid"') == 6
    assert "fa&lt;st</th>" in page and "<td>39.90 (step 100)</td>" in page
    rows = re.findall(r"<tr><th>config\.(.*?)</th><td>(.*?)</td><td>(.*?)</td>", page)
    assert rows == [("optimizer.learning_rate", "0.0001", "0.001")]
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)


def test_picture_has_a_panel_for_each_chart_and_a_line_for_each_run(runs, tmp_path):
    assert compare(runs, tmp_path / "out") == 0
    picture = cv2.imread(str(tmp_path / "out" / "comparison.png"))
    assert picture.shape == (2 * 20 + 8 + 230, 3 * 400, 3)
    ink = [picture[20 * row + 14, 20].tolist() for row in (0, 1)]
    assert ink[0] != ink[1]
    for column in range(3):
        panel = picture[48:, column * 400 : (column + 1) * 400].astype(int)
        for colour in ink:
            # Smoothed edges blend with the paper.
            assert (np.abs(panel - colour).sum(-1) < 90).sum() > 50


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "it does not exist. Train it"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b"\0\n{"), "it holds none."),
        (lambda run: (run / "config.json").write_text("{"), "config.json"),
        (lambda run: (run / "config.json").unlink(), "config.json"),
    ],
)
def test_a_damaged_run_is_one_sentence(runs, tmp_path, capsys, spoil, message):
    spoil(runs[1])
    assert compare(runs, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error and str(runs[1]) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
