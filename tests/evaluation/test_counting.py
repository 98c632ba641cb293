"""Exact counts against plain statements."""

import cv2
import numpy as np
import pytest

from segnext_jax.evaluation import counting
from segnext_jax.evaluation.counting import Counts, count_image

IGNORE = 255


def count(prediction, labels, num_classes=3, **options):
    return count_image(
        np.array(prediction, np.uint8),
        np.array(labels, np.uint8),
        num_classes=num_classes,
        ignore_label=IGNORE,
        **options,
    )


def test_counts_by_label_and_prediction():
    counts = count([[0, 1, 2], [2, 2, 0]], [[0, 1, 1], [2, 255, 255]])
    assert counts.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert counts.confusion.dtype == np.int64
    assert counts.boundary is None


def test_two_to_the_forty_pixels_do_not_overflow():
    """Each of 1024 parts holds 2^30 + 1 pixels in one cell."""
    part = Counts(np.array([[2**30 + 1, 0], [1, 0]]), np.full((3, 2), 2**30 + 1))
    total = sum([part] * 1024, start=Counts.zeros(2, has_boundary=True))
    assert total.confusion.tolist() == [[2**40 + 1024, 0], [1024, 0]]
    assert (total.boundary == 2**40 + 1024).all()


def test_exact_counts_travel_as_two_words(monkeypatch):
    """As if three processes of the same counts had met."""
    monkeypatch.setattr(counting.jax, "process_count", lambda: 3)

    def gather(words):
        assert words.dtype == np.uint32
        return np.stack([words] * 3)

    monkeypatch.setattr(counting.multihost_utils, "process_allgather", gather)
    large = np.array([[2**40 + 1, 2**32 - 1], [2**31, 7]])
    summed = counting.sum_over_processes(Counts(large, np.stack([large[0]] * 3)))
    np.testing.assert_array_equal(summed.confusion, 3 * large)
    np.testing.assert_array_equal(summed.boundary, 3 * np.stack([large[0]] * 3))


def blobs(height, width, num_classes, seed):
    generator = np.random.default_rng(seed)
    noise = cv2.resize(
        generator.random((height // 7 + 2, width // 7 + 2)).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    ids = np.clip(noise * num_classes, 0, num_classes - 1).astype(np.uint8)
    return np.where(generator.random((height, width)) < 0.002, 0, ids).astype(np.uint8)


def mask_to_boundary(mask, width):
    """As Cheng et al. write it: pad by nothing, erode so many times by 3x3."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return (mask - eroded[1:-1, 1:-1]).astype(bool)


@pytest.mark.parametrize("size", [(60, 91), (37, 23), (5, 40)])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_boundary_region_is_that_of_each_class_alone(size, width):
    labels = blobs(*size, 4, seed=0)
    labels[: size[0] // 3, : size[1] // 4] = IGNORE
    region = counting.boundary_region(labels, width)
    for index in (*range(4), IGNORE):
        mask = (labels == index).astype(np.uint8)
        wanted = mask_to_boundary(mask, width)
        np.testing.assert_array_equal(region & (labels == index), wanted)


def test_boundary_width_is_a_share_of_the_diagonal():
    assert counting.boundary_width((1024, 2048), 0.02) == round(0.02 * 2289.7)
    assert counting.boundary_width((10, 10), 0.02) == 1


def test_boundary_counts_equal_the_plain_statement():
    size, num_classes, ratio = (60, 91), 4, 0.02
    labels = blobs(*size, num_classes, seed=1)
    prediction = np.roll(labels, (1, 2), (0, 1))
    labels[20:30, 40:70] = IGNORE
    width = max(1, round(ratio * float(np.hypot(*size))))
    assert width == 2
    wanted = np.zeros((3, num_classes), int)
    for index in range(num_classes):
        masks = [(m == index).astype(np.uint8) for m in (labels, prediction)]
        of_labels, of_prediction = (
            mask_to_boundary(mask, width) & (labels != IGNORE) for mask in masks
        )
        both = of_labels & of_prediction
        wanted[:, index] = of_labels.sum(), of_prediction.sum(), both.sum()
    counts = count(prediction, labels, num_classes, boundary_ratio=ratio)
    np.testing.assert_array_equal(counts.boundary, wanted)
    assert (wanted > 0).all()


def test_prediction_of_ignored_pixels_changes_no_count():
    labels = blobs(40, 50, 3, seed=2)
    labels[10:20] = IGNORE
    prediction = blobs(40, 50, 3, seed=3)
    other = np.where(labels == IGNORE, 2 - prediction, prediction)
    assert (other != prediction).any()
    given, wanted = count(prediction, labels), count(other, labels)
    np.testing.assert_array_equal(given.confusion, wanted.confusion)
    assert given.confusion.sum() == 40 * 50 - 500
