"""Two trainings compared: the recipe on PyTorch's side, and what the verdict says."""

import numpy as np
import pytest
import torch

from benchmarks.train_to_train import report, sides
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.training import schedule

RUNS = [sides.Run("exact", side, "float32", 0) for side in ("jax", "torch")]


@pytest.fixture
def config():
    return sides.configure(RUNS[0], num_steps=60)


def network(*names):
    return torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in names})


def test_both_sides_have_the_learning_rate_of_each_step(config):
    optimizer, scheduler = sides.torch_optimizer(network("head", "norm1"), config)
    ours = schedule.from_config(config)
    for step in range(60):
        rates = [group["lr"] for group in optimizer.param_groups]
        rate = float(ours(step))
        np.testing.assert_allclose(rates, [2 * rate] * 2 + [rate] * 2, rtol=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("norms_decay", "expected"), [(False, 0.0), (True, 0.01)])
def test_norms_decay_by_the_mistake_alone(config, norms_decay, expected):
    optimizer, _ = sides.torch_optimizer(
        network("norm1", "proj"), config, norms_decay=norms_decay
    )
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [expected, expected, 0.01, 0.01]


@pytest.mark.slow
def test_both_sides_take_the_same_steps(config):
    """The losses of random images before and after two updates."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    labels = rng.integers(0, 12, (2, 64, 96)).astype(np.uint8)
    labels[labels == 11] = 255
    bases = rng.random((2, 256, 16), np.float32)
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    made = [
        make(run, config, variables)
        for make, run in zip((sides.of_jax, sides.of_torch), RUNS, strict=True)
    ]
    losses = [[side.step(images, labels, bases) for _ in range(3)] for side in made]
    assert losses[0][2] < losses[0][1]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("shift", "factors", "expected"),
    [
        (0, 1, "the same"),
        (4, 1, "the sides differ"),
        (0, (0.8, 1.2, 1, 0.9, 1.1), "too few seeds to tell"),
    ],
)
def test_the_verdict_can_go_three_ways(shift, factors, expected):
    ours = np.array([30.0, 31.0, 30.5, 29.5, 30.2])
    assert report.verdict(ours + shift, ours[::-1] * factors)[1] == expected


def test_the_interval_is_that_of_welch():
    """Means 2 and 6, variances 1 and 4 of 3 values: 2.941 degrees of freedom."""
    interval, _ = report.verdict([1, 2, 3], [4, 6, 8])
    # t(0.975, 2.941) = 3.2188, times sqrt(1/3 + 4/3) = 1.2910.
    assert interval == "-8.16 to +0.16"


def test_agreement_ends_at_the_first_step_that_differs():
    theirs = np.full(5, 2.0)
    ours = theirs * (1 + np.array([0, 1e-7, 1e-3, 1e-7, 0.1]))
    assert report.steps_of_agreement(ours, theirs) == [1, 2, 2, 4]
    assert report.steps_of_agreement(theirs, theirs) == [5] * 4
