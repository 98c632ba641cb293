"""The learning rate against the formulas of mmcv and timm."""

import math

import jax
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.training.schedule import (
    batch_size_factor,
    cosine_with_warmup,
    from_config,
    poly_with_warmup,
)


def mmcv_rate(step, base, num_steps, warmup_steps, ratio, power=1.0, floor=0.0):
    """PolyLrUpdaterHook with linear warm-up, as plain Python."""
    regular = (base - floor) * (1 - step / num_steps) ** power + floor
    if step >= warmup_steps:
        return regular
    return regular * (1 - (1 - step / warmup_steps) * (1 - ratio))


@pytest.mark.parametrize("power, floor", [(1.0, 0.0), (0.9, 1e-6)])
def test_rate_equals_mmcv_formula(power, floor):
    with jax.enable_x64(True):
        schedule = poly_with_warmup(
            learning_rate=6e-5,
            num_steps=160_000,
            power=power,
            min_learning_rate=floor,
            warmup_steps=1500,
            warmup_ratio=1e-6,
        )
        for step in (0, 1, 750, 1499, 1500, 1501, 80_000, 159_999):
            expected = mmcv_rate(step, 6e-5, 160_000, 1500, 1e-6, power, floor)
            assert float(schedule(step)) == pytest.approx(expected, rel=1e-12, abs=0)


def test_rate_in_float32_is_close():
    schedule = poly_with_warmup(learning_rate=6e-5, num_steps=160_000)
    for step in (1, 1499, 80_000, 159_000):
        expected = mmcv_rate(step, 6e-5, 160_000, 1500, 1e-6)
        # Near the end 1 - t loses 2^-24 / 0.006 of its value.
        assert float(schedule(step)) == pytest.approx(expected, rel=2e-5, abs=0)


def test_rate_ends_at_floor_and_stays():
    schedule = poly_with_warmup(
        learning_rate=1.0, num_steps=10, min_learning_rate=0.25, warmup_steps=0
    )
    assert float(schedule(10)) == 0.25
    assert float(schedule(11)) == 0.25


def timms_cosine(step: float) -> float:
    """CosineLRScheduler of 300 epochs, 5 of warm-up from 1e-6, 10 of cooldown."""
    if step < 5:
        return 1e-6 + step * (1e-3 - 1e-6) / 5
    if step >= 300:
        return 1e-6
    return 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * step / 300))


@pytest.mark.parametrize("step", [0, 1, 4, 5, 6, 150, 299, 300, 305, 310, 400])
def test_cosine_is_timms_at_the_start_of_each_epoch(step):
    """One step stands for an epoch."""
    schedule = cosine_with_warmup(
        learning_rate=1e-3,
        num_steps=310,
        min_learning_rate=1e-6,
        warmup_steps=5,
        warmup_ratio=1e-3,
        cooldown_steps=10,
    )
    assert float(schedule(step)) == pytest.approx(timms_cosine(step), rel=2e-6)


def test_cosine_without_warmup_begins_at_its_height():
    schedule = cosine_with_warmup(learning_rate=0.5, num_steps=8)
    assert float(schedule(0)) == 0.5
    assert float(schedule(4)) == pytest.approx(0.25)
    assert float(schedule(8)) == 0


@pytest.mark.parametrize(
    ("name", "settings", "factor", "reference"),
    [
        ("ade20k_base", ["batch_size=64"], 1, 16),
        ("ade20k_base", ["batch_size=64", "linear"], 4, 16),
        ("ade20k_base", ["batch_size=64", "sqrt"], 2, 16),
        ("ade20k_base", ["batch_size=4", "sqrt"], 0.5, 16),
        ("imagenet_tiny", ["batch_size=4096", "linear"], 4, 1024),
        ("imagenet_tiny", ["linear"], 1, 1024),
        ("cityscapes_base", ["linear", "optimizer.reference_batch_size=8"], 1, 8),
    ],
)
def test_rates_are_scaled_to_the_batch_where_asked(name, settings, factor, reference):
    recipe = config_lib.load(name)
    scaled = config_lib.load(
        name,
        [
            text if "=" in text else f"optimizer.scale_learning_rate={text}"
            for text in settings
        ],
    )
    assert batch_size_factor(scaled) == (factor, reference)
    rate, expected = from_config(scaled), from_config(recipe)
    for step in (0, 700, 1500, recipe.num_steps // 2, recipe.num_steps):
        np.testing.assert_allclose(rate(step), factor * expected(step), rtol=1e-6)
