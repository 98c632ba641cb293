"""Which compiled programs the tests keep: tests/conftest.py."""

import os
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from segnext_jax.ops import sharding


@pytest.fixture
def small_programs_are_kept():
    name = "jax_persistent_cache_min_compile_time_secs"
    value = getattr(jax.config, name)
    jax.config.update(name, 0)
    yield
    jax.config.update(name, value)


@pytest.mark.usefixtures("small_programs_are_kept")
def test_programs_with_an_exchange_in_a_loop_are_compiled_anew():
    """XLA:CPU orders such exchanges only in a program that it has compiled itself."""
    mesh, spread = sharding.make_mesh(), PartitionSpec(sharding.DATA_AXIS)

    def exchange(x):
        return jax.lax.psum(x, sharding.DATA_AXIS) / 8

    def exchange_thrice(x):
        return jax.lax.fori_loop(0, 3, lambda _, value: exchange(value), x)

    for function in (exchange, exchange_thrice):
        shared = jax.shard_map(
            *(function,),
            **{"mesh": mesh, "in_specs": spread, "out_specs": spread},
            check_vma=False,
        )
        shared.__name__ = function.__name__
        jax.jit(shared)(np.ones(8, np.float32))
    folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    kept = [path.name for path in folder.iterdir()]
    assert any(name.startswith("jit_exchange-") for name in kept)
    assert not any(name.startswith("jit_exchange_thrice-") for name in kept)
