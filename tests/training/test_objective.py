"""The objective that a configuration describes."""

import pathlib

import jax
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.ops import losses
from segnext_jax.training.objective import Objective

BASE = str(pathlib.Path(__file__).parents[2] / "configs" / "shapes_tiny.py")
WEIGHTS = (1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0)


def example():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, (2, 5, 6)).astype(np.uint8)
    labels[0, :2] = 255
    logits = rng.normal(0, 2, (2, 5, 6, 7)).astype(np.float32)
    return logits, labels


def objective_of(*overrides) -> Objective:
    config = config_lib.load(BASE, overrides)
    # Through the file that a run's workdir keeps.
    config = config_lib.from_json(config_lib.to_json(config))
    return Objective.from_config(config.loss, ignore_label=255)


def terms(objective):
    def of(logits, labels):
        return objective.terms(logits, labels, objective.divisor(labels))

    return jax.jit(of)(*example())


def test_default_is_the_official_cross_entropy():
    given = terms(objective_of())
    assert list(given) == ["cross_entropy"]
    assert float(given["cross_entropy"]) == float(
        jax.jit(losses.cross_entropy)(*example())
    )


def test_every_field_reaches_its_term():
    given = terms(
        objective_of(
            "loss.weights.cross_entropy=0.5",
            "loss.weights.focal=2",
            "loss.weights.dice=3.0",
            "loss.weights.lovasz=0.25",
            "loss.average=valid",
            f"loss.class_weights={','.join(map(str, WEIGHTS))}",
            "loss.label_smoothing=0.1",
            "loss.ohem_min_kept=3",
            "loss.ohem_threshold=0.2",
            "loss.focal_gamma=1.5",
            "loss.dice_smooth=0.5",
        )
    )
    weighted = {"average": "valid", "class_weights": WEIGHTS}

    @jax.jit
    def wanted(*arrays):
        options = {"label_smoothing": 0.1, **weighted}
        is_kept = losses.hard_pixels(*arrays, threshold=0.2, min_kept=3)
        return {
            "cross_entropy": 0.5
            * losses.cross_entropy(*arrays, is_kept=is_kept, **options),
            "focal": 2 * losses.focal(*arrays, gamma=1.5, **weighted),
            "dice": 3 * losses.dice(*arrays, smooth=0.5),
            "lovasz": 0.25 * losses.lovasz_softmax(*arrays),
        }

    expected = wanted(*example())
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        assert float(given[name]) == pytest.approx(float(value), rel=1e-6), name


def test_gradient_passes_the_kept_pixels_alone():
    objective = objective_of("loss.ohem_min_kept=3", "loss.ohem_threshold=0.0")

    @jax.jit
    def gradient_and_kept(logits, labels):
        def loss(logits):
            divisor = objective.divisor(labels)
            return objective.terms(logits, labels, divisor)["cross_entropy"]

        is_kept = losses.hard_pixels(logits, labels, threshold=0.0, min_kept=3)
        return jax.grad(loss)(logits), is_kept

    gradient, is_kept = gradient_and_kept(*example())
    has_gradient = np.abs(gradient).sum(-1) > 0
    np.testing.assert_array_equal(has_gradient, is_kept)
    assert has_gradient.sum() == 6


@pytest.mark.parametrize(
    "override, message",
    [
        ("loss.weights.cross_entropy=0", "config.loss.weights must have a term above"),
        ("loss.class_weights=1,2", "for each of the 7 classes of shapes: got 2"),
        ("loss.class_weights=1,1,1,1,1,1,-1", "factors of at least 0"),
        ("loss.focal_gamma=0.5", "0 or a number of at least 1: got '0.5'"),
        ("loss.weights.hinge=1", "config.loss.weights.hinge is not a field"),
    ],
)
def test_impossible_objective_is_refused(override, message):
    with pytest.raises(ValueError, match=message):
        config_lib.load(BASE, [override])
