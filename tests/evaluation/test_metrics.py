"""Metrics against the recorded ones, closed forms and properties."""

import json

import numpy as np
import pytest

from segnext_jax.evaluation.counting import Counts, count_image
from segnext_jax.evaluation.metrics import compute_metrics, spread


def metrics_of(confusion, boundary=None):
    return compute_metrics(Counts(np.array(confusion), boundary))


def test_counts_and_metrics_are_the_recorded_ones(reference):
    """The labels hold 200, outside of the 12 classes, where predictions still count.

    The input pipeline refuses such labels; here they are a 13th class.
    """
    recorded = np.load(reference / "aug.npz")
    total = Counts.zeros(13, has_boundary=False)
    for number in range(3):
        labels = recorded[f"metric/label{number}"].copy()
        labels[labels == 200] = 12
        prediction = recorded[f"metric/pred{number}"]
        total += count_image(prediction, labels, num_classes=13, ignore_label=255)
    areas = {
        "area_intersect": np.diag(total.confusion),
        "area_pred": total.confusion.sum(axis=0),
        "area_label": total.confusion.sum(axis=1),
    }
    for name, values in areas.items():
        np.testing.assert_array_equal(values[:12], recorded[f"metric/{name}"])

    values = compute_metrics(total).per_class()
    summary = json.loads(str(recorded["metric/summary"]))
    for name, source in {
        "IoU": "mIoU",
        "Acc": "mIoU",
        "Dice": "mDice",
        "Precision": "mFscore",
    }.items():
        # The recorded ones are quotients of float32 sums.
        given, wanted = values[name][:12], recorded[f"metric/{source}/{name}"]
        np.testing.assert_allclose(given, wanted, rtol=2e-7)
        mean = np.mean(given[~np.isnan(given)])
        assert mean == pytest.approx(summary[f"{source}/{name}"], rel=2e-7)
    # Its recall is its Acc; its F-score is Dice but for classes that are never hit.
    recall, fscore = (recorded[f"metric/mFscore/{n}"] for n in ("Recall", "Fscore"))
    np.testing.assert_allclose(values["Acc"][:12], recall, rtol=2e-7)
    is_hit = np.isfinite(fscore)
    dice = values["Dice"][:12]
    np.testing.assert_allclose(dice[is_hit], fscore[is_hit], rtol=2e-7)
    assert set(dice[~is_hit & np.isfinite(dice)]) == {0.0}
    hits, labelled = areas["area_intersect"], areas["area_label"]
    assert hits[:12].sum() / labelled[:12].sum() == pytest.approx(
        summary["mIoU/aAcc"], rel=2e-7
    )


def test_metrics_by_hand():
    metrics = metrics_of([[3, 1, 0], [0, 2, 2], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou, [3 / 4, 2 / 5, 0.0])
    np.testing.assert_allclose(metrics.accuracy, [3 / 4, 2 / 4, np.nan])
    np.testing.assert_allclose(metrics.precision, [1, 2 / 3, 0])
    np.testing.assert_allclose(metrics.dice, [6 / 7, 4 / 7, 0])
    assert list(metrics.summary()) == ["mIoU", "mAcc", "aAcc"]
    summary = metrics.means()
    assert summary["mIoU"] == metrics.mean_iou == pytest.approx((3 / 4 + 2 / 5) / 3)
    assert summary["mAcc"] == metrics.mean_accuracy == pytest.approx(5 / 8)
    assert summary["aAcc"] == pytest.approx(5 / 8)
    assert summary["fwIoU"] == pytest.approx((4 * 3 / 4 + 4 * 2 / 5) / 8)
    assert summary["mDice"] == pytest.approx((6 / 7 + 4 / 7) / 3)
    assert summary["mPrecision"] == pytest.approx(5 / 9)


def test_boundary_iou_by_hand():
    boundary = np.array([[10, 4, 0], [6, 0, 0], [4, 0, 0]])
    metrics = metrics_of(np.diag([20, 8, 0]), boundary)
    np.testing.assert_allclose(metrics.boundary_iou, [4 / 12, 0, np.nan])
    assert metrics.means()["mBoundaryIoU"] == pytest.approx(1 / 6)


def test_class_that_occurs_nowhere_is_left_out():
    metrics = metrics_of(np.diag([4, 0, 6]))
    assert all(np.isnan(values[1]) for values in metrics.per_class().values())
    assert set(metrics.means().values()) == {1.0}
    shares = {"a": 1.0, "b": None, "c": 1.0}
    assert metrics.to_dict(["a", "b", "c"])["IoU"] == shares
    logged = metrics.to_log(["a", "b", "c"])
    assert logged == {**metrics.means(), "IoU": shares}


def test_no_pixel_at_all_gives_nan_without_warning():
    metrics = metrics_of(np.zeros((2, 2), int))
    assert all(np.isnan(value) for value in metrics.means().values())
    assert metrics.to_dict(["a", "b"])["mIoU"] is None


def test_counts_beyond_float32_and_int32_stay_exact():
    metrics = metrics_of([[2**40 + 1, 0], [1, 2**40]])
    assert metrics.confusion[0, 0] == 2**40 + 1
    assert metrics.iou[0] == pytest.approx(1 - 2**-40, rel=0, abs=2**-45)


def test_spread_is_that_of_a_sample():
    runs = [metrics_of([[a, 10 - a], [0, 10]]) for a in (8, 6, 7)]
    accuracies = [0.9, 0.8, 0.85]
    values = spread(runs)["mAcc"]
    assert values["mean"] == pytest.approx(0.85)
    assert values["std"] == pytest.approx(0.05)
    assert (values["min"], values["max"]) == (min(accuracies), max(accuracies))
