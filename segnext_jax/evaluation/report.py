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
      metrics: Of one evaluation.
      step: Of the checkpoint; None: the weights are of no run.
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
      metrics: Of one evaluation.
      step: Of the checkpoint; None: the weights are of no run.
      classes: Names.
      workdir: The folder to write into.
      **more: What else the JSON file is to hold.
    """
    logging.info("\n%s", metrics.table(classes))
    results = {"step": step, **metrics.to_dict(classes), **more}
    write_json(workdir / RESULTS_FILE, results, indent=2)
    logging.info("Results are in %s: %s.", workdir, RESULTS_FILE)


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


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
