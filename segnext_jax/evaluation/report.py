"""Metrics for people: a table for the terminal, CSV."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from segnext_jax.evaluation.metrics import Metrics


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
