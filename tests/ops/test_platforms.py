"""Formulations per platform, and what JAX finds in them."""

import jax
import jax.numpy as jnp
import pytest

from segnext_jax.ops import sharding
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


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("has_gradient", [False, True])
def test_a_formulation_is_traced_once(num_devices, has_gradient):
    """For its shapes and to be lowered, which took a quarter of a step's lowering."""
    traces = []

    def square(values):
        traces.append(values.shape)
        return values * values

    @jax.custom_vjp
    def apply(values):
        return by_platform(values, default=square)

    def backward(values, cotangent):
        return (by_platform(values, default=square) * cotangent,)

    apply.defvjp(lambda values: (apply(values), values), backward)
    mesh = sharding.make_mesh(devices=jax.devices()[:num_devices])
    function = (lambda x: jnp.sum(apply(x))) if has_gradient else apply
    jitted = jax.jit(
        jax.grad(function) if has_gradient else function,
        in_shardings=sharding.batch_sharding(mesh),
    )
    jitted.lower(jnp.ones((8, 2)))
    assert traces == [(8, 2)]
