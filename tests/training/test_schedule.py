"""The learning rate against mmcv's formula."""

import jax
import pytest

from segnext_jax.training.schedule import poly_with_warmup


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
