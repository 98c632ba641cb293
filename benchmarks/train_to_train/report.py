"""The tables, the verdict and the picture of the trainings that were compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from benchmarks.train_to_train.sides import FORMS, Run

# Pairs of the exact series that are compared.
PAIRS = (
    ("jax float32", "torch float32"),
    ("torch float32", "torch other sums"),
    ("jax float64", "torch float64"),
    ("jax float64", "torch norms decay"),
)
TOLERANCES = (1e-10, 1e-6, 1e-4, 1e-2)
# mIoU, in percent: what is smaller than this is called the same.
MARGIN = 3.0
# Steps over which the loss at the end is averaged.
LAST = 50


def steps_of_agreement(ours: Sequence[float], theirs: Sequence[float]) -> list[int]:
    """Return how many first losses agree to each of `TOLERANCES`, relatively."""
    differences = np.abs(np.subtract(ours, theirs)) / np.abs(theirs)
    return [
        int(np.argmax(np.append(differences, np.inf) > tolerance))
        for tolerance in TOLERANCES
    ]


def verdict(ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, str]:
    """Return the 95 % interval of the difference of two means, and what it says.

    Welch's t interval of ours minus theirs. If 0 lies outside, the sides differ. Else,
    if the interval lies within +-`MARGIN`, they end at the same mIoU. Else the seeds
    are too few to tell.
    """
    found = scipy.stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = found.confidence_interval(0.95)
    interval = f"{low:+.2f} to {high:+.2f}"
    if low > 0 or high < 0:
        return interval, "the sides differ"
    if -MARGIN < low and high < MARGIN:
        return interval, "the same"
    return interval, "too few seeds to tell"


def report(results: dict[str, dict[str, Any]], num_seeds: int) -> str:
    """Return the tables of both series as Markdown.

    Args:
      results: What `train` returned, by `Run.file`.
      num_seeds: Seeds of the drawn series.
    """
    limits = " | ".join(f"to {tolerance:g}" for tolerance in TOLERANCES)
    lines = [
        f"| first steps whose losses agree | {limits} |",
        "|---|" + "---|" * len(TOLERANCES),
    ]
    for pair in PAIRS:
        names = (name.split(" ", 1) for name in pair)
        sides = (Run("exact", side, form, 0).file for side, form in names)
        counts = steps_of_agreement(*(results[file]["losses"] for file in sides))
        lines.append(f"| {' and '.join(pair)} | {' | '.join(map(str, counts))} |")
    lines += ["", "| | jax | PyTorch | 95 % of the difference | verdict |"]
    lines.append("|---|---|---|---|---|")
    drawn = {
        side: [results[Run("drawn", side, "float32", n).file] for n in range(num_seeds)]
        for side in FORMS
    }
    for split in drawn["jax"][0]["mIoU"]:
        scores = [[r["mIoU"][split] for r in drawn[side]] for side in FORMS]
        row = [*map(spread, scores), *verdict(*scores)]
        lines.append(f"| mIoU {split} | {' | '.join(row)} |")
    ends = [[np.mean(r["losses"][-LAST:]) for r in drawn[side]] for side in FORMS]
    lines.append(
        f"| loss of the last {LAST} steps | {' | '.join(map(spread, ends))} | | |"
    )
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return mean, standard deviation and each value."""
    each = ", ".join(f"{value:.2f}" for value in values)
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} ({each})"


_STYLE = (
    "text{font:13px sans-serif;fill:#1b1f24}line{stroke:#d5d9df}"
    "polyline{fill:none;stroke-width:1.2;stroke-opacity:.75}"
    ".jax{stroke:#c2410c}.torch{stroke:#1d4ed8}.exact{stroke-dasharray:4 3}"
)
_LABEL = (
    "loss, mean of {} steps; orange: segnext_jax, blue: PyTorch; dashed: exact series"
)


def draw(results: dict[str, dict[str, Any]], steps_per_point: int = 10) -> str:
    """Return the losses of the usual forms of both sides over the steps, as SVG."""
    curves = [
        (f"{result['side']} {result['series']}", points)
        for result in results.values()
        if result["form"] == "float32"
        for points in [np.reshape(result["losses"], (-1, steps_per_point)).mean(axis=1)]
    ]
    top = max(points.max() for _, points in curves)
    longest = max(len(points) for _, points in curves)
    shapes = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 30 + 300 * share
        shapes += [
            f'<line x1="50" x2="790" y1="{y:g}" y2="{y:g}"/>',
            f'<text x="8" y="{y + 4:g}">{top * (1 - share):.2f}</text>',
        ]
    for name, points in curves:
        x = 50 + 740 * (np.arange(len(points)) + 0.5) / longest
        pairs = zip(x, 30 + 300 * (1 - points / top), strict=True)
        path = " ".join(f"{left:.1f},{height:.1f}" for left, height in pairs)
        shapes.append(f'<polyline class="{name}" points="{path}"/>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 340">'
    frame = '<rect width="800" height="340" fill="#fff"/>'
    label = f'<text x="50" y="18">{_LABEL.format(steps_per_point)}</text>'
    return "\n".join(
        [head, f"<style>{_STYLE}</style>", frame, label, *shapes, "</svg>\n"]
    )
