"""Metrics for people: a table for the terminal, a picture of the confusion, files."""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from segnext_jax.cli.whole_files import whole_file, write_json
from segnext_jax.evaluation.metrics import Metrics
from segnext_jax.evaluation.top_k import ClassificationMetrics
from segnext_jax.images import pictures

RESULTS_FILE = "evaluation.json"
TABLE_FILE = "evaluation.csv"
CONFUSION_FILE = "confusion.png"


def write_results(
    metrics: Metrics,
    step: int | None,
    classes: Sequence[str],
    workdir: pathlib.Path,
    **more: Any,
) -> None:
    """Log the table of metrics; write it as JSON and CSV, and draw the confusion.

    Args:
      metrics: The metrics of one evaluation.
      step: The step of the checkpoint; None: the weights belong to no run.
      classes: Names.
      workdir: The folder to write into.
      **more: What else the JSON file is to hold.
    """
    logging.info("\n%s", format_table(metrics, classes))
    results = {"step": step, **metrics.to_dict(classes), **more}
    write_json(workdir / RESULTS_FILE, results, indent=2)
    with whole_file(workdir / TABLE_FILE) as partial:
        partial.write_text(to_csv(metrics, classes), newline="")
    picture = pictures.draw_confusion(metrics.confusion, classes)
    with whole_file(workdir / CONFUSION_FILE) as partial:
        Image.fromarray(picture).save(partial)
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
      metrics: The metrics of one evaluation.
      step: The step of the checkpoint; None: the weights belong to no run.
      classes: Names.
      workdir: The folder to write into.
      **more: What else the JSON file is to hold.
    """
    logging.info("\n%s", metrics.table(classes))
    results = {"step": step, **metrics.to_dict(classes), **more}
    write_json(workdir / RESULTS_FILE, results, indent=2)
    logging.info("Results are in %s: %s.", workdir, RESULTS_FILE)


def format_table(metrics: Metrics, classes: Sequence[str]) -> str:
    """Return the per-class table with its means, and the summary, in percent.

    The last row weighs the classes by their labelled pixels: fwIoU and aAcc.
    """
    columns = metrics.per_class()
    means = metrics.means()
    labelled = metrics.confusion.sum(axis=1)
    share = 100 * labelled / max(labelled.sum(), 1)
    by_pixels = {"IoU": means["fwIoU"], "Acc": means["aAcc"]}
    rows = [
        (name, {key: values[index] for key, values in columns.items()}, share[index])
        for index, name in enumerate(classes)
    ]
    rows.append(("mean", {key: means[f"m{key}"] for key in columns}, None))
    rows.append(("by pixels", by_pixels, None))
    width = max(len(name) for name, *_ in rows)
    headers = "".join(f"  {name:>{max(len(name), 6)}}" for name in columns)
    lines = [f"{'class':<{width}}{headers}  {'pixels':>6}"]
    for name, values, percent in rows:
        cells = "".join(
            f"  {_percent(values.get(key, np.nan)):>{max(len(key), 6)}}"
            for key in columns
        )
        pixels = "" if percent is None else f"  {percent:5.1f}%"
        lines.append(f"{name:<{width}}{cells}{pixels}")
    return "\n".join([*lines, format_summary(metrics)])


def format_summary(metrics: Metrics) -> str:
    """Return what a network is compared by, in percent, in one line."""
    return "  ".join(
        f"{name} {_percent(value)}" for name, value in metrics.summary().items()
    )


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
    summary = metrics.means()
    means = [_number(summary[f"m{name}"]) for name in columns]
    writer.writerow(["mean", *means, labelled.sum(), predicted.sum()])
    return text.getvalue()


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
