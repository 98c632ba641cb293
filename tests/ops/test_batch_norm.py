import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import batch_norm
from segnext_jax.ops.kernels import moments as kernels
from segnext_jax.ops.kernels.per_image import fingerprint, over_devices
from segnext_jax.ops.sharding import batch_sharding, make_mesh, replicated

EPSILON = 1e-5
MOMENTS = functools.partial(batch_norm.mean_and_variance, interpret=True)


def images(shape, mean=3.0, dtype=np.float64):
    generator = np.random.default_rng(0)
    means = mean + 10 * generator.standard_normal(shape[-1])
    return (generator.standard_normal(shape) + means).astype(dtype)


def plain(images, scale, bias):
    """The formula, left to automatic differentiation."""
    mean = jnp.mean(images, axis=(0, 1, 2))
    deviations = images - mean[None, None, None]
    var = jnp.mean(jnp.square(deviations), axis=(0, 1, 2))
    gain = scale / jnp.sqrt(var + EPSILON)
    return deviations * gain[None, None, None] + bias[None, None, None]


def ours(images, scale, bias):
    return batch_norm.normalize_by_batch(images, scale, bias, EPSILON)[0]


def test_values_gradients_and_second_derivatives_are_those_of_the_formula():
    with jax.enable_x64(True):
        x = jnp.asarray(images((2, 3, 5, 4)))
        scale, bias = jnp.linspace(0.5, 2, 4), jnp.linspace(-1, 1, 4)

        def slope(function):
            def loss(*arguments):
                return jnp.sum(jnp.sin(function(*arguments)))

            def along(*arguments):
                gradient = jax.grad(loss, argnums=(0, 1, 2))(*arguments)
                return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, arguments)))

            value_and_grad = jax.value_and_grad(loss, argnums=(0, 1, 2))
            second = jax.grad(along, argnums=(0, 1, 2))
            return jax.jit(lambda *a: (value_and_grad(*a), second(*a)))(x, scale, bias)

        given, wanted = slope(ours), slope(plain)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9),
        *(given, wanted),
    )


@pytest.mark.parametrize(
    "shape",
    # Programs of several columns and rows, the last ones smaller; few channels.
    [(2, 21, 70, 3), (3, 9, 6, 24), (1, 1, 2, 8)],
)
def test_the_kernels_have_the_same_sums(shape):
    @jax.jit
    def kernels_and_operations(x, g):
        mean, var = batch_norm._two_passes(x)
        slopes = kernels.slopes(x, g, mean, interpret=True)
        sums = batch_norm._two_sums(x, g, mean)
        return (MOMENTS(x), slopes), ((mean, var), sums)

    x = images(shape)
    with jax.enable_x64(True):
        (given, slopes), (wanted, sums) = kernels_and_operations(x, np.cos(x))
    np.testing.assert_allclose(given, wanted, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(slopes).sum(0), sums, rtol=1e-9, atol=1e-9)


def test_devices_that_share_a_batch_exchange_moments_once():
    x = jnp.asarray(images((16, 6, 7, 8), dtype=np.float32))
    mesh = make_mesh()
    spread, whole = batch_sharding(mesh), replicated(mesh)

    jitted = jax.jit(over_devices(MOMENTS), in_shardings=spread, out_shardings=whole)
    lowered = jitted.lower(x)
    compiled = lowered.compile()
    text = compiled.as_text()
    # A mean and a sum of squares of each device, not of each image.
    (gathered,) = re.findall(r"= (\S+)\{\S+ all-gather\(", text)
    assert gathered == "f32[8,2,8]"
    assert "all-reduce" not in text
    # A program that is compiled already is not taken for one with other kernels.
    assert f"dense<{fingerprint()}>" in lowered.as_text()
    given = compiled(jax.device_put(x, spread))
    wanted = jax.jit(batch_norm._two_passes)(x)
    np.testing.assert_allclose(given, wanted, rtol=1e-5)


@pytest.mark.parametrize("batch", [16, 12], ids=["divided", "whole"])
def test_tpus_that_share_a_batch_exchange_moments_once(batch):
    x = images((batch, 6, 7, 8), dtype=np.float32)
    mesh = make_mesh()
    spread = batch_sharding(mesh) if batch % 8 == 0 else replicated(mesh)

    def of_batch(x):
        # What `by_platform` does where a program for TPUs is lowered.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return batch_norm._one_exchange(x)

    jitted = jax.jit(of_batch, in_shardings=spread, out_shardings=replicated(mesh))
    compiled = jitted.lower(x).compile()
    given = compiled(jax.device_put(x, spread))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(given[0], exact.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(given[1], exact.var((0, 1, 2)), rtol=1e-5)
    text = compiled.as_text()
    assert len(re.findall(r" all-gather\(", text)) == (batch % 8 == 0)
    assert "all-reduce" not in text


def test_a_large_mean_does_not_cancel():
    x = images((4, 16, 24, 8), mean=3000.0, dtype=np.float32)
    mean, var = jax.jit(MOMENTS)(jnp.asarray(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    # A standard deviation is 1e-4 of the mean's rounding; E[x^2] - E[x]^2 would have no
    # digit left: (3000 / 1)^2 units in the last place of 2^-24.
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-4)


def test_bfloat16_is_summed_in_float32():
    x = jnp.asarray(images((2, 8, 8, 4)), jnp.bfloat16)
    parts = jax.jit(functools.partial(kernels.moments, interpret=True))(x)
    assert parts.dtype == jnp.float32
    normalize = jax.jit(batch_norm.normalize_by_batch, static_argnums=3)
    ones = np.ones(4, np.float32)
    output, mean, var = normalize(x, ones, 0 * ones, EPSILON)
    assert output.dtype == jnp.bfloat16 and mean.dtype == var.dtype == jnp.float32
