import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfc

from segnext_jax.ops.gelu import gelu


def exact(x):
    return 0.5 * x * erfc(-x / np.sqrt(2))


def density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def derivatives(x):
    """Value, first and second derivative, in closed form."""
    return (
        exact(x),
        0.5 * erfc(-x / np.sqrt(2)) + x * density(x),
        (2 - x * x) * density(x),
    )


def ours(x):
    slope = jax.grad(gelu)
    functions = [jax.vmap(f) for f in (gelu, slope, jax.grad(slope))]
    return jax.device_get(jax.jit(lambda x: [f(x) for f in functions])(x))


def test_value_and_derivatives_in_float32():
    # Far beyond where erf is 1; the steps meet both limits to a float32 or two.
    x = np.linspace(-30, 30, 600_001).astype(np.float32)
    scale = np.maximum(1, np.abs(x.astype(np.float64)))
    wanted = derivatives(x.astype(np.float64))
    for given, value, limit in zip(ours(x), wanted, (4e-7, 4e-7, 2e-6), strict=True):
        assert np.max(np.abs(given - value) / scale) < limit


def test_value_and_derivatives_in_float64():
    with jax.enable_x64(True):
        x = np.linspace(-12, 12, 10_001)
        for given, value in zip(ours(x), derivatives(x), strict=True):
            np.testing.assert_allclose(given, value, rtol=1e-12, atol=1e-14)


def test_special_values():
    values = np.float32([-0.0, 0.0, np.inf, -np.inf, np.nan, 1e30, -1e30])
    given = jax.jit(gelu)(values)
    wanted = np.asarray([0, 0, np.inf, 0, np.nan, 1e30, 0], np.float32)
    np.testing.assert_array_equal(given, wanted)


def test_no_derivative_is_nan_for_large_values():
    slope = jax.jit(jax.vmap(jax.grad(gelu)))
    values = np.float32([-1e30, -1e4, 1e4, 1e30])
    np.testing.assert_array_equal(slope(values), [0, 0, 1, 1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_types_are_rounded_once(dtype):
    x = np.linspace(-6, 6, 999).astype(dtype)
    given = jax.jit(gelu)(x)
    assert given.dtype == dtype
    wanted = exact(np.asarray(x, np.float64))
    unit = float(jnp.finfo(dtype).eps) / 2
    # The absolute error is float32's, 4e-7 times abs(x).
    np.testing.assert_allclose(np.float32(given), wanted, 1.01 * unit, 2.4e-6)
