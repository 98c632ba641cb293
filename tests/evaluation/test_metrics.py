"""Counts and metrics against the reference, closed forms and properties."""

import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.evaluation.metrics import (
    compute_metrics,
    confusion_matrix,
    format_table,
)


def count(predictions, labels, mask=None, num_classes=3):
    predictions, labels = jnp.array(predictions), jnp.array(labels, jnp.uint8)
    mask = jnp.ones(len(labels), bool) if mask is None else jnp.array(mask)
    return np.asarray(
        confusion_matrix(predictions, labels, mask, num_classes=num_classes)
    )


def test_counts_by_label_and_prediction():
    predictions = [[[0, 1, 2], [2, 2, 0]]]
    labels = [[[0, 1, 1], [2, 255, 255]]]
    expected = [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    np.testing.assert_array_equal(count(predictions, labels), expected)


def test_masked_images_do_not_count():
    predictions = np.zeros((2, 3, 5), int)
    labels = np.zeros((2, 3, 5), int)
    assert count(predictions, labels, [True, False]).sum() == 15


def test_metrics_by_hand():
    metrics = compute_metrics(np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]]))
    np.testing.assert_allclose(metrics.iou, [3 / 4, 2 / 5, 0.0])
    np.testing.assert_allclose(metrics.accuracy, [3 / 4, 2 / 4, np.nan])
    assert metrics.mean_iou == pytest.approx((3 / 4 + 2 / 5) / 3)
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert metrics.pixel_accuracy == pytest.approx(5 / 8)


def test_class_that_occurs_nowhere_is_left_out():
    metrics = compute_metrics(np.diag([4, 0, 6]))
    assert np.isnan(metrics.iou[1])
    assert metrics.mean_iou == 1.0
    assert metrics.to_dict(["a", "b", "c"])["IoU"] == {"a": 1.0, "b": None, "c": 1.0}


def test_no_pixel_at_all_gives_nan_without_warning():
    metrics = compute_metrics(np.zeros((2, 2), int))
    assert np.isnan(metrics.mean_iou)
    assert np.isnan(metrics.pixel_accuracy)


def test_counts_beyond_float32_and_int32_stay_exact():
    confusion = np.array([[2**40 + 1, 0], [1, 2**40]])
    metrics = compute_metrics(confusion)
    assert metrics.confusion[0, 0] == 2**40 + 1
    assert metrics.iou[0] == pytest.approx(1 - 2**-40, rel=0, abs=2**-45)


def test_table_names_each_class_and_the_means():
    text = format_table(compute_metrics(np.diag([4, 0, 6])), ["road", "sky", "tree"])
    lines = text.splitlines()
    assert lines[1].split() == ["road", "100.00", "100.00", "40.0%"]
    assert lines[2].split() == ["sky", "-", "-", "0.0%"]
    assert lines[-1] == "mIoU 100.00  mAcc 100.00  aAcc 100.00"
