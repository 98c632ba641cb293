import logging as std_logging
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from segnext_jax.training.monitor import meter as meter_lib
from segnext_jax.training.monitor.meter import Meter
from segnext_jax.training.optimizer import Optimizer, Rule


@pytest.fixture
def clock(monkeypatch):
    """The time; tests set it."""
    now = [100.0]
    monkeypatch.setattr(meter_lib.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def meter():
    rules = Rule("head", "h", lr_multiplier=10.0), Rule("other", ".*")
    frozen = Rule("frozen", "f", is_frozen=True)
    optimizer = Optimizer(
        optax.identity(), (*rules, frozen), schedule=lambda step: 0.5 * step
    )
    meter = Meter(8, optimizer, 0.2)
    yield meter
    meter.close()


def metrics(loss, gradient_norm=1.0, update_norm=0.5):
    values = {"loss": loss, "gradient_norm": gradient_norm, "update_norm": update_norm}
    return {name: jnp.asarray(value) for name, value in values.items()}


def test_an_interval_holds_means_rates_and_times(clock, meter):
    for step, loss in ((4, 1.0), (5, 4.0)):
        with meter.waiting_for_data(step):
            clock[0] += 0.05
        meter.add(step, metrics(loss, gradient_norm=2 * loss))
    clock[0] += 0.1
    interval = meter.flush()
    values = interval.values
    assert interval.broken_steps == {}
    assert (values["loss"], values["gradient_norm"]) == (2.5, 5.0)
    # Of the last step: the schedule counts the steps before it.
    assert values["learning_rate"] == 2.0
    assert values["learning_rate/head"] == 20.0
    assert values["learning_rate/other"] == 2.0
    assert values["data_wait_seconds"] == pytest.approx(0.05)
    assert values["step_seconds"] == pytest.approx(0.1)
    assert values["images_per_second"] == pytest.approx(80)
    assert values["data_wait_share"] == pytest.approx(0.5)
    assert 0.05 < values["host_memory_gib"] < 24


def test_the_clock_leaves_out_what_came_before_its_start(clock, meter):
    meter.add(1, metrics(1.0))
    clock[0] += 30
    meter.start_clock()
    meter.add(2, metrics(3.0))
    clock[0] += 2
    values = meter.flush().values
    assert values["loss"] == 2.0
    assert values["step_seconds"] == 2
    assert values["images_per_second"] == 4


def test_broken_steps_are_told_apart(meter):
    meter.add(1, metrics(1.0))
    meter.add(2, metrics(np.nan))
    meter.add(3, metrics(2.0, np.inf))
    meter.add(4, metrics(2.0, 1.0, np.inf))
    interval = meter.flush()
    assert interval.values["loss"] == 1.0
    assert sorted(interval.broken_steps) == [2, 3, 4]
    assert interval.broken_steps[3] == {
        "loss": 2.0,
        "gradient_norm": np.inf,
        "update_norm": 0.5,
    }
    meter.add(4, metrics(np.nan))
    assert np.isnan(meter.flush().values["loss"])


def test_a_pipeline_that_gives_nothing_is_reported(meter, caplog):
    logger = logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(std_logging.INFO, logger="absl"):
            with meter.waiting_for_data(6):
                time.sleep(0.05)
            assert not caplog.records
            with meter.waiting_for_data(7):
                time.sleep(0.55)
    finally:
        logger.removeHandler(caplog.handler)
    texts = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert all("has given nothing for" in text for text in texts[:-1])
    assert "step 7 waits" in texts[0] and len(texts) >= 2
    assert texts[-1] == "The input pipeline goes on with step 7."
