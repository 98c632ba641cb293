"""Formulations per platform, and what JAX finds in them."""

import jax
import jax.numpy as jnp
import pytest

from segnext_jax.ops.platforms import by_platform


def logarithm(values):
    return jnp.log(values) + 1


def test_the_operation_that_makes_a_nan_is_named():
    function = jax.jit(lambda values: by_platform(values, default=logarithm))
    assert jnp.isnan(function(jnp.array([-1.0])))
    with (
        jax.debug_nans(True),
        pytest.raises(FloatingPointError, match="encountered in log"),
    ):
        function(jnp.array([-1.0]))
