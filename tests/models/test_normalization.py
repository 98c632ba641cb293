"""BatchNorm against its formula, PyTorch's running statistics, and over a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.models.normalization import BatchNorm
from segnext_jax.ops import sharding


def images(batch=3, height=5, width=7, channels=4):
    return np.random.default_rng(0).normal(3, 2, (batch, height, width, channels))


def train(module, x):
    """Output and updates of the first step."""

    def first(x):
        variables = module.init(jax.random.key(0), x, train=True)
        return module.apply(variables, x, train=True, mutable="batch_stats")

    return jax.jit(first)(x)


def test_training_normalises_by_the_batch_and_keeps_unbiased_variance():
    with jax.enable_x64(True):
        x = images()
        module = BatchNorm(dtype=jnp.float64, param_dtype=jnp.float64)
        output, updates = train(module, x)
        mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
        np.testing.assert_allclose(output, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-12)
        stats = updates["batch_stats"]
        np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-12)
        unbiased = np.var(x, (0, 1, 2), ddof=1)
        np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * unbiased, rtol=1e-12)


def test_inference_normalises_by_the_running_statistics():
    with jax.enable_x64(True):
        x = images()
        rng = np.random.default_rng(1)
        variables = {
            "params": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)},
            "batch_stats": {"mean": rng.normal(size=4), "var": rng.uniform(1, 2, 4)},
        }
        module = BatchNorm(dtype=jnp.float64, param_dtype=jnp.float64)
        output = jax.jit(functools.partial(module.apply, train=False))(variables, x)
        scale, bias = variables["params"]["scale"], variables["params"]["bias"]
        mean, var = (variables["batch_stats"][name] for name in ("mean", "var"))
        expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)


def test_statistics_are_of_the_whole_sharded_batch():
    x, module = images(batch=8).astype(np.float32), BatchNorm()
    mesh = sharding.make_mesh()
    whole, stats = train(module, x)
    spread, spread_stats = train(
        module, jax.device_put(x, sharding.batch_sharding(mesh))
    )
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, whole, rtol=0, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), spread_stats, stats
    )


def test_statistics_of_bfloat16_are_float32():
    x = (images() + 100).astype(jnp.bfloat16)
    module = BatchNorm(dtype=jnp.bfloat16)
    output, updates = train(module, x)
    assert output.dtype == jnp.bfloat16
    mean = updates["batch_stats"]["mean"]
    assert mean.dtype == jnp.float32
    exact = np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(mean, 0.1 * exact, rtol=1e-6)
