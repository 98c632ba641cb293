"""Top-1 and top-5 against a stable sort in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.evaluation.top_k import (
    ClassificationMetrics,
    count_hits,
    measure_classification,
)

RNG = np.random.default_rng(0)
NUM_CLASSES = 9
# Scores of few values, so that many are equal.
LOGITS = RNG.integers(0, 6, (50, NUM_CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, NUM_CLASSES - 1, 50).astype(np.int32)
MASK = RNG.random(50) < 0.8


def expected() -> np.ndarray:
    counts = np.zeros((3, NUM_CLASSES), int)
    for scores, label, is_real in zip(LOGITS, LABELS, MASK, strict=True):
        best = list(np.argsort(-scores, kind="stable"))
        rank = best.index(label)
        counts[:, label] += is_real * np.array([1, rank < 1, rank < 5])
    return counts


def test_counts_are_those_of_a_stable_sort():
    found = count_hits(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(MASK))
    np.testing.assert_array_equal(found, expected())


def test_score_that_is_no_number_is_never_right():
    logits = jnp.full((2, NUM_CLASSES), jnp.nan)
    found = count_hits(logits, jnp.array([0, 3]), jnp.array([True, True]))
    np.testing.assert_array_equal(np.sum(found, axis=1), [2, 0, 0])


def test_evaluation_adds_up_batches_and_leaves_copies_out():
    batches = [
        {"image": LOGITS[part], "label": LABELS[part], "mask": MASK[part]}
        for part in (slice(0, 20), slice(20, 50))
    ]

    def shard(batch):
        return {name: jnp.asarray(array) for name, array in batch.items()}

    # The scores themselves stand in for images of one channel that is not looked at.
    metrics = measure_classification(
        lambda images: images, batches, num_classes=NUM_CLASSES, shard_fn=shard
    )
    images, first, among = expected()
    np.testing.assert_array_equal(metrics.num_images, images)
    assert metrics.summary() == {
        "top1": pytest.approx(first.sum() / MASK.sum()),
        "top5": pytest.approx(among.sum() / MASK.sum()),
    }


def test_results_name_classes_and_the_worst():
    metrics = ClassificationMetrics(
        num_images=np.array([4, 0, 2]),
        num_first=np.array([1, 0, 2]),
        num_among=np.array([4, 0, 2]),
    )
    classes = ("ant", "bee", "cat")
    results = metrics.to_dict(classes)
    assert results == {
        "top1": 0.5,
        "top5": 1.0,
        "images": 6,
        "class_top1": {"ant": 0.25, "bee": None, "cat": 1.0},
    }
    lines = metrics.table(classes).splitlines()
    assert "25.00  ant (4 images)" in lines[1] and "bee" not in metrics.table(classes)
    assert lines[-1] == "top1 50.00  top5 100.00  of 6 images"
