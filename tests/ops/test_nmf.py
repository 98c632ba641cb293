import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import nmf
from segnext_jax.ops.kernels import nmf as kernels

draw_bases = jax.jit(nmf.draw_bases, static_argnums=(1, 2, 3))


def statement(inputs, bases, num_steps):
    """The update rules for one image, in plain NumPy; X is [channels, positions]."""
    x, d = inputs.T, bases
    scores = np.exp(d.T @ x)
    c = scores / scores.sum(axis=0)
    for _ in range(num_steps):
        c = c * (d.T @ x) / (d.T @ d @ c + 1e-6)
        d = d * (x @ c.T) / (d @ c @ c.T + 1e-6)
    c = c * (d.T @ x) / (d.T @ d @ c + 1e-6)
    return (d @ c).T


def case(batch=2, positions=35, channels=12, rank=5):
    generator = np.random.default_rng(0)
    inputs = np.maximum(generator.standard_normal((batch, positions, channels)), 0)
    bases = generator.random((batch, channels, rank))
    return inputs, bases / np.linalg.norm(bases, axis=1, keepdims=True)


@pytest.mark.parametrize("num_steps", [0, 7])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_equals_the_plain_statement(num_steps, gradient):
    inputs, bases = case()
    with jax.enable_x64(True):
        reconstruct = functools.partial(
            nmf.reconstruct, num_steps=num_steps, gradient=gradient
        )
        given = jax.jit(reconstruct)(jnp.asarray(inputs), jnp.asarray(bases))
        assert given.dtype == jnp.float64
    for image in range(len(inputs)):
        wanted = statement(inputs[image], bases[image], num_steps)
        np.testing.assert_allclose(given[image], wanted, rtol=1e-12)


def numerical_gradient(function, inputs, direction, step=1e-6):
    return (
        function(inputs + step * direction) - function(inputs - step * direction)
    ) / (2 * step)


def test_full_gradient_is_that_of_all_steps():
    inputs, bases = case()
    inputs = inputs + 0.1
    generator = np.random.default_rng(1)
    weights, direction = generator.standard_normal((2, *inputs.shape))

    def loss(inputs):
        images = [statement(x, d, 6) for x, d in zip(inputs, bases, strict=True)]
        return np.sum(weights * np.stack(images))

    with jax.enable_x64(True):
        gradient = jax.jit(
            jax.grad(
                lambda x: jnp.sum(
                    weights * nmf.reconstruct(x, jnp.asarray(bases), num_steps=6)
                )
            )
        )(jnp.asarray(inputs))
    wanted = numerical_gradient(loss, inputs, direction)
    np.testing.assert_allclose(
        np.sum(np.asarray(gradient) * direction), wanted, rtol=1e-7
    )


def test_one_step_gradient_is_that_of_the_last_coefficients():
    inputs, bases = case(batch=1)
    inputs = inputs + 0.1
    generator = np.random.default_rng(1)
    weights, direction = generator.standard_normal((2, *inputs.shape))
    x, d = inputs[0].T, bases[0]
    scores = np.exp(d.T @ x)
    c = scores / scores.sum(axis=0)
    for _ in range(6):
        c = c * (d.T @ x) / (d.T @ d @ c + 1e-6)
        d = d * (x @ c.T) / (d @ c @ c.T + 1e-6)

    def loss(inputs):
        last = c * (d.T @ inputs[0].T) / (d.T @ d @ c + 1e-6)
        return np.sum(weights[0] * (d @ last).T)

    with jax.enable_x64(True):
        gradient = jax.jit(
            jax.grad(
                lambda v: jnp.sum(
                    weights
                    * nmf.reconstruct(
                        v, jnp.asarray(bases), num_steps=6, gradient="one_step"
                    )
                )
            )
        )(jnp.asarray(inputs))
    wanted = numerical_gradient(loss, inputs, direction)
    np.testing.assert_allclose(
        np.sum(np.asarray(gradient) * direction), wanted, rtol=1e-8
    )


def test_unknown_gradient_is_an_error():
    inputs, bases = map(jnp.float32, case())
    with pytest.raises(ValueError, match="one of full, one_step: got 'two_step'"):
        nmf.reconstruct(inputs, bases, num_steps=1, gradient="two_step")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_extreme_inputs_give_finite_values_and_gradients(gradient, dtype):
    varied, _ = case(positions=300, channels=64)
    bases = draw_bases(jax.random.key(0), 2, 64, 16)

    @jax.jit
    def value_and_gradient(inputs):
        output, pull = jax.vjp(
            lambda x: nmf.reconstruct(x, bases, num_steps=6, gradient=gradient), inputs
        )
        return output, *pull(jnp.ones_like(output))

    for name, inputs in (
        ("zeros", np.zeros_like(varied)),
        ("constant", np.full_like(varied, 1e4)),
        ("varied", 1e4 * varied),
    ):
        inputs = jnp.asarray(inputs, dtype)
        output, cotangent = value_and_gradient(inputs)
        assert output.dtype == dtype
        inputs, output, cotangent = (
            np.asarray(array, np.float32) for array in (inputs, output, cotangent)
        )
        assert np.all(np.isfinite(output)), name
        assert np.all(np.isfinite(cotangent)), name
        # Rank 1 is recovered, to the precision of the type; so is nothing from nothing.
        if name != "varied":
            precision = 1e-5 if dtype == "float32" else 1e-2
            np.testing.assert_allclose(output, inputs, rtol=precision)


def test_updates_run_in_float32_for_bfloat16_inputs():
    inputs, bases = case(positions=300, channels=64, rank=8)
    rounded = inputs.astype(jnp.bfloat16)
    reconstruct = jax.jit(functools.partial(nmf.reconstruct, num_steps=6))
    given = reconstruct(rounded, np.float32(bases))
    with jax.enable_x64(True):
        wanted = reconstruct(rounded.astype(np.float64), bases)
    # Half a unit in the last of bfloat16's 8 bits: the result alone is rounded.
    np.testing.assert_allclose(
        np.asarray(given, np.float64), wanted, rtol=2**-8, atol=1e-6
    )


def test_bases_have_unit_length_and_follow_the_key():
    bases = draw_bases(jax.random.key(3), 2, 12, 5)
    assert bases.shape == (2, 12, 5)
    assert bases.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(bases, axis=1), 1, rtol=1e-6)
    again = draw_bases(jax.random.key(3), 2, 12, 5)
    np.testing.assert_array_equal(bases, again)
    assert np.abs(bases - draw_bases(jax.random.key(4), 2, 12, 5)).max() > 0.1


coefficients = functools.partial(
    kernels.coefficients, epsilon=nmf.EPSILON, interpret=True
)


@pytest.mark.parametrize(("channels", "rank"), [(48, 16), (128, 32)])
@pytest.mark.parametrize("is_first", [False, True])
def test_the_kernel_equals_the_update(channels, rank, is_first):
    @jax.jit
    def both(inputs, bases):
        old = None if is_first else nmf.product("bnd,bdr->bnr", inputs + 0.1, bases)
        gram = nmf.product("bdr,bds->brs", bases, bases)
        given = coefficients(inputs, bases, gram, old)
        numerator = nmf.product("bnd,bdr->bnr", inputs, bases)
        start = jax.nn.softmax(numerator) if is_first else old
        return given, nmf._update_coefficients(numerator, bases, start)

    with jax.enable_x64(True):
        given, wanted = both(*case(2, 75, channels, rank))
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


def test_the_kernel_multiplies_short_inputs_exactly():
    @jax.jit
    def both(inputs, bases):
        gram = nmf.product("bdr,bds->brs", bases, bases)
        old = jnp.ones((1, 20, 16))
        given = coefficients(inputs, bases, gram, old)
        numerator = nmf.product("bnd,bdr->bnr", inputs.astype(jnp.float32), bases)
        return given, nmf._update_coefficients(numerator, bases, old)

    inputs, bases = case(1, 20, 48, 16)
    given, wanted = both(inputs.astype(jnp.bfloat16), np.float32(bases))
    np.testing.assert_allclose(given, wanted, rtol=2e-6)
