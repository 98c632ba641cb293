"""The loop over batches: what is counted, what is shown, what is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.evaluation.evaluator import evenly, measure_segmentation
from segnext_jax.evaluation.inference import Inference
from segnext_jax.pipeline.fitting import Fitting

FITTING = Fitting(multiple=8, alignment="pad")
SIZES = [(12, 20), (16, 24), (9, 17)]


def make_batch(mask=(True, True, True)):
    """Images whose grey level is their class, and labels that are right."""
    images = [np.full((*s, 3), i, np.uint8) for i, s in enumerate(SIZES)]
    return LabelledBatch(
        images=(np.stack([FITTING.images(image)[0] for image in images]),),
        fitted_sizes=tuple(zip(*map(FITTING.sizes, SIZES), strict=True)),
        image_sizes=tuple(SIZES),
        first_row=0,
        labels=tuple(np.full(s, i, np.uint8) for i, s in enumerate(SIZES)),
        mask=np.array(mask),
        image_ids=("a", "b", "c"),
    )


def logits_fn(inputs):
    """Score of a class: minus the distance of the grey level from its number."""
    grey = inputs[:, ::8, ::8, :1]
    return -jnp.abs(grey - jnp.arange(3.0)[None, None, None])


NETWORK = Inference(logits_fn, mean=(0.0,) * 3, std=(1.0,) * 3)
OPTIONS = {"num_classes": 3, "ignore_label": 255}


def test_copies_are_not_counted():
    metrics = measure_segmentation(
        NETWORK, [make_batch((True, False, True))], **OPTIONS
    )
    assert metrics.confusion.tolist() == np.diag([240, 0, 153]).tolist()
    assert metrics.boundary_iou is None


def test_batches_add_up():
    metrics = measure_segmentation(
        NETWORK, [make_batch()] * 3, boundary_ratio=0.02, **OPTIONS
    )
    assert metrics.confusion.tolist() == np.diag([720, 1152, 459]).tolist()
    assert metrics.boundary_iou.tolist() == [1, 1, 1]


def test_examples_come_without_padding_and_copies():
    shown = []
    measure_segmentation(
        NETWORK,
        [make_batch((False, True, True)), make_batch()],
        examples={0, 2},
        example_fn=lambda *example: shown.append(example),
        **OPTIONS,
    )
    assert [name for name, *_ in shown] == ["b", "a"]
    for name, image, label, prediction in shown:
        number = "abc".index(name)
        assert image.shape[:2] == label.shape == prediction.shape == SIZES[number]
        assert (image == number).all() and (prediction == number).all()


def test_examples_lie_evenly_in_the_split():
    assert evenly(4, 101) == {12, 37, 63, 88}
    assert evenly(4, 2) == {0, 1} and evenly(0, 5) == set()


def test_scores_that_are_no_numbers_are_refused():
    broken = dataclasses.replace(
        NETWORK, logits_fn=lambda x: logits_fn(x).at[1].set(jnp.nan)
    )
    with pytest.raises(FloatingPointError, match="those of b hold nan at 384 pixels"):
        measure_segmentation(broken, [make_batch()], **OPTIONS)
