"""What people and programs read: table and CSV."""

import csv
import io

import numpy as np

from segnext_jax.evaluation.counting import Counts
from segnext_jax.evaluation.metrics import compute_metrics
from segnext_jax.evaluation.report import format_table, to_csv

CLASSES = ["road", "sky", "tree"]
METRICS = compute_metrics(Counts(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 6]])))


def test_table_names_each_class_and_the_means():
    lines = format_table(METRICS, CLASSES).splitlines()
    assert lines[0].split() == "class IoU Acc Dice Precision pixels".split()
    assert lines[1].split() == "road 75.00 75.00 85.71 100.00 40.0%".split()
    assert lines[2].split() == "sky 0.00 - 0.00 0.00 0.0%".split()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4].split() == "mean 58.33 87.50 61.90 66.67".split()
    assert lines[5].split() == "by pixels 90.00 90.00 - -".split()
    assert lines[6:] == ["mIoU 58.33  mAcc 87.50  aAcc 90.00"]


def test_table_has_boundaries_where_they_were_counted():
    counts = Counts(np.diag([1, 2, 3]), np.array([[2, 2, 2], [2, 2, 2], [1, 2, 0]]))
    lines = format_table(compute_metrics(counts), CLASSES).splitlines()
    assert "BoundaryIoU" in lines[0]
    assert lines[1].split()[5] == "33.33"
    assert lines[4].split() == "mean 100.00 100.00 100.00 100.00 44.44".split()


def test_csv_holds_the_exact_shares_and_counts():
    rows = list(csv.DictReader(io.StringIO(to_csv(METRICS, CLASSES))))
    assert [row["class"] for row in rows] == [*CLASSES, "mean"]
    assert float(rows[0]["Dice"]) == METRICS.dice[0]
    assert rows[1]["Acc"] == "" and rows[1]["IoU"] == "0.0"
    assert float(rows[3]["IoU"]) == METRICS.mean_iou
    labelled = [int(row["labelled_pixels"]) for row in rows]
    predicted = [int(row["predicted_pixels"]) for row in rows]
    assert labelled == [4, 0, 6, 10] and predicted == [3, 1, 6, 10]
