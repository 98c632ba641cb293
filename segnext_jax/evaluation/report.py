"""Metrics for people: a table for the terminal, a picture of the confusion, files."""

import csv
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Int, UInt8
from PIL import Image

from segnext_jax.evaluation.metrics import Metrics
from segnext_jax.evaluation.top_k import ClassificationMetrics

RESULTS_FILE = "evaluation.json"
TABLE_FILE = "evaluation.csv"
CONFUSION_FILE = "confusion.png"

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK, _GRID = (255, 255, 255), (20, 20, 20), (222, 222, 222)
# Colour of share 1; shares between are blended with the paper.
_FULL = np.array([8, 48, 107])
_MARGIN_PX = 12
# Cells that hold a number, and those of a matrix that is too large for numbers.
_NUMBERED_CELL_PX, _PLAIN_CELL_PX = 38, 15
_MAX_NUMBERED_CLASSES = 40


def write_results(
    metrics: Metrics,
    step: int | None,
    classes: Sequence[str],
    workdir: pathlib.Path,
    **more: Any,
) -> None:
    """Log the table of metrics; write it as JSON and CSV, and draw the confusion.

    Args:
      metrics: Of one evaluation.
      step: Of the checkpoint; None: the weights are of no run.
      classes: Names.
      workdir: The folder to write into.
      **more: What else the JSON file is to hold.
    """
    logging.info("\n%s", format_table(metrics, classes))
    results = {"step": step, **metrics.to_dict(classes), **more}
    _write_file(workdir / RESULTS_FILE, json.dumps(results, indent=2).encode())
    _write_file(workdir / TABLE_FILE, to_csv(metrics, classes).encode())
    picture = io.BytesIO()
    Image.fromarray(draw_confusion(metrics.confusion, classes)).save(
        picture, format="png"
    )
    _write_file(workdir / CONFUSION_FILE, picture.getvalue())
    names = f"{RESULTS_FILE}, {TABLE_FILE} and {CONFUSION_FILE}"
    logging.info("Results are in %s: %s.", workdir, names)


def write_classification_results(
    metrics: ClassificationMetrics,
    step: int | None,
    classes: Sequence[str],
    workdir: pathlib.Path,
    **more: Any,
) -> None:
    """Log the metrics of a classification and write them as JSON.

    Args:
      metrics: Of one evaluation.
      step: Of the checkpoint; None: the weights are of no run.
      classes: Names.
      workdir: The folder to write into.
      **more: What else the JSON file is to hold.
    """
    logging.info("\n%s", metrics.table(classes))
    results = {"step": step, **metrics.to_dict(classes), **more}
    _write_file(workdir / RESULTS_FILE, json.dumps(results, indent=2).encode())
    logging.info("Results are in %s: %s.", workdir, RESULTS_FILE)


def _write_file(path: pathlib.Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def format_table(metrics: Metrics, classes: Sequence[str]) -> str:
    """Return the per-class table and the means, in percent, as text."""
    columns = metrics.per_class()
    del columns["Recall"]  # The same as Acc.
    labelled = metrics.confusion.sum(axis=1)
    share = 100 * labelled / max(labelled.sum(), 1)
    width = max(len("class"), *(len(name) for name in classes))
    headers = "".join(f"  {name:>{max(len(name), 6)}}" for name in columns)
    lines = [f"{'class':<{width}}{headers}  {'pixels':>6}"]
    for index, name in enumerate(classes):
        cells = "".join(
            f"  {_percent(values[index]):>{max(len(header), 6)}}"
            for header, values in columns.items()
        )
        lines.append(f"{name:<{width}}{cells}  {share[index]:5.1f}%")
    return "\n".join([*lines, format_summary(metrics)])


def format_summary(metrics: Metrics) -> str:
    """Return the numbers of the whole, in percent, in one line."""
    summary = metrics.summary()
    del summary["mRecall"]  # The same as mAcc.
    return "  ".join(f"{name} {_percent(value)}" for name, value in summary.items())


def to_csv(metrics: Metrics, classes: Sequence[str]) -> str:
    """Return one line per class and one of means, as shares; empty where undefined.

    Columns are the class, its metrics, and its pixels in labels and in predictions.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = metrics.per_class()
    writer.writerow(["class", *columns, "labelled_pixels", "predicted_pixels"])
    labelled, predicted = (metrics.confusion.sum(axis=axis) for axis in (1, 0))
    for index, name in enumerate(classes):
        values = [_number(column[index]) for column in columns.values()]
        writer.writerow([name, *values, labelled[index], predicted[index]])
    summary = metrics.summary()
    means = [_number(summary[f"m{name}"]) for name in columns]
    writer.writerow(["mean", *means, labelled.sum(), predicted.sum()])
    return text.getvalue()


def draw_confusion(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw which share of each label's pixels was predicted as which class.

    Rows are labels and sum to 100 %, columns are predictions. Small shares are shown
    stronger than in proportion (by their square root). Up to 40 classes, each cell of
    half a percent or more holds its percentage; the row of a class without labels is
    crossed out.

    Args:
      confusion: Pixel counts [label, prediction].
      classes: Names.

    Returns:
      An RGB picture.
    """
    count = len(classes)
    is_numbered = count <= _MAX_NUMBERED_CLASSES
    cell = _NUMBERED_CELL_PX if is_numbered else _PLAIN_CELL_PX
    scale = 0.45 if is_numbered else 0.35
    labelled = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(labelled, 1)
    titles = ["rows: label, columns: prediction", "percent of the label's pixels"]
    text_width = max(_text_width(name, scale) for name in classes)
    left = text_width + 2 * _MARGIN_PX
    top = text_width + 2 * _MARGIN_PX
    width = left + count * cell + _MARGIN_PX
    width = max(width, _MARGIN_PX * 2 + max(_text_width(t, 0.45) for t in titles))
    header = 22 * len(titles)
    picture = np.full((header + top + count * cell + _MARGIN_PX, width, 3), 255)
    picture = picture.astype(np.uint8)
    for number, title in enumerate(titles):
        _write(picture, title, _MARGIN_PX, 22 * number + 18, 0.45)
    top += header

    strength = np.sqrt(shares)[..., None]
    colours = np.rint(255 * (1 - strength) + _FULL * strength).astype(np.uint8)
    body = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    picture[top : top + count * cell, left : left + count * cell] = body
    end = left + count * cell, top + count * cell
    for index in range(count + 1):
        x, y = left + index * cell, top + index * cell
        cv2.line(picture, (x, top), (x, end[1]), _GRID, 1)
        cv2.line(picture, (left, y), (end[0], y), _GRID, 1)
    for index, name in enumerate(classes):
        middle = index * cell + cell // 2
        baseline = top + middle + round(10 * scale)
        start = left - 8 - _text_width(name, scale)
        _write(picture, name, start, baseline, scale)
        strip = np.full((cell, text_width + 2, 3), 255, np.uint8)
        _write(strip, name, 1, cell // 2 + round(10 * scale), scale)
        turned = cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)
        above = slice(top - 8 - turned.shape[0], top - 8)
        picture[above, left + index * cell : left + (index + 1) * cell] = turned
        if not labelled[index]:
            y = top + middle
            cv2.line(picture, (left, y), (end[0], y), (150, 150, 150), 1)
    if is_numbered:
        _write_numbers(picture, shares, (left, top), cell)
    return picture


def _write_numbers(
    picture: UInt8[np.ndarray, "height width 3"],
    shares: np.ndarray,
    origin: tuple[int, int],
    cell: int,
) -> None:
    for row, column in np.argwhere(shares >= 0.005).tolist():
        text = f"{100 * shares[row, column]:.0f}"
        x = origin[0] + column * cell + (cell - _text_width(text, 0.4)) // 2
        y = origin[1] + row * cell + cell // 2 + 4
        is_dark = shares[row, column] > 0.2
        _write(picture, text, x, y, 0.4, _PAPER if is_dark else _INK)


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, _FONT, scale, 1)[0][0]


def _write(
    picture: np.ndarray,
    text: str,
    x: int,
    y: int,
    scale: float,
    colour: tuple[int, int, int] = _INK,
) -> None:
    cv2.putText(picture, text, (x, y), _FONT, scale, colour, 1, cv2.LINE_AA)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
