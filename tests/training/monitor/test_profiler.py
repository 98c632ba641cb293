import jax
import jax.numpy as jnp
import pytest

from segnext_jax.training.monitor.profiler import Profiler


def traces(workdir):
    return list((workdir / "profile").rglob("*.xplane.pb"))


def take(profiler, steps):
    for step in steps:
        profiler.before(step)
        profiler.after(step, jnp.arange(step + 1.0) * step)


@pytest.mark.parametrize("last", [2, 3])
def test_a_trace_is_there_when_the_last_of_its_steps_is_done(tmp_path, last):
    profiler = Profiler(tmp_path, (2, last))
    take(profiler, range(1, last))
    assert not traces(tmp_path)
    take(profiler, [last])
    assert len(traces(tmp_path)) == 1
    # Not running: the next trace can begin.
    with jax.profiler.trace(str(tmp_path / "next")):
        take(profiler, [last + 1])
    assert len(traces(tmp_path)) == 1


def test_a_run_that_ends_earlier_leaves_what_it_traced(tmp_path):
    profiler = Profiler(tmp_path, (2, 9))
    take(profiler, (1, 2, 3))
    profiler.close()
    assert len(traces(tmp_path)) == 1


def test_nothing_is_traced_unless_it_is_asked_for(tmp_path):
    profiler = Profiler(tmp_path, (0, 0))
    take(profiler, (1, 2))
    profiler.close()
    assert not (tmp_path / "profile").exists()
