import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.decomposition import concept


def iterate(inputs, bases, num_steps):
    """The concepts after the steps, in plain NumPy; x is [channels, positions]."""
    x, d = inputs.T, bases
    for _ in range(num_steps):
        scores = 100 * (d.T @ (x / np.maximum(np.linalg.norm(x, axis=0), 1e-12)))
        c = np.exp(scores - scores.max(axis=0))
        c = c / c.sum(axis=0)
        d = x @ (c / (c.sum(axis=1, keepdims=True) + 1e-6)).T
        d = d / np.maximum(np.linalg.norm(d, axis=0), 1e-6)
    return d


def regress(inputs, d):
    """Ridge regression of each position on the concepts, beta = 0.1."""
    return inputs @ d @ np.linalg.inv(d.T @ d + 0.1 * np.eye(d.shape[1])) @ d.T


def statement(inputs, bases, num_steps):
    return regress(inputs, iterate(inputs, bases, num_steps))


def case(batch=2, positions=35, channels=12, rank=5):
    generator = np.random.default_rng(0)
    inputs = np.maximum(generator.standard_normal((batch, positions, channels)), 0)
    bases = generator.standard_normal((batch, channels, rank))
    return inputs, bases / np.linalg.norm(bases, axis=1, keepdims=True)


@pytest.mark.parametrize("num_steps", [0, 7])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_equals_the_plain_statement(num_steps, gradient):
    inputs, bases = case()
    inputs[0, 3] = 0
    with jax.enable_x64(True):
        reconstruct = functools.partial(
            concept.reconstruct, num_steps=num_steps, gradient=gradient
        )
        given = jax.jit(reconstruct)(jnp.asarray(inputs), jnp.asarray(bases))
        assert given.dtype == jnp.float64
    for image in range(len(inputs)):
        wanted = statement(inputs[image], bases[image], num_steps)
        np.testing.assert_allclose(given[image], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_gradient_is_that_of_all_steps_or_of_the_regression_alone(gradient):
    inputs, bases = case(batch=1)
    generator = np.random.default_rng(1)
    weights, direction = generator.standard_normal((2, *inputs.shape))
    fixed = iterate(inputs[0], bases[0], 3)
    step = 1e-6

    def loss(x):
        output = statement(x, bases[0], 3) if gradient == "full" else regress(x, fixed)
        return np.sum(weights[0] * output)

    ends = [loss(inputs[0] + sign * step * direction[0]) for sign in (1, -1)]
    with jax.enable_x64(True):
        given = jax.jit(
            jax.grad(
                lambda x: jnp.sum(
                    weights
                    * concept.reconstruct(
                        x, jnp.asarray(bases), num_steps=3, gradient=gradient
                    )
                )
            )
        )(jnp.asarray(inputs))
    wanted = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(np.sum(np.asarray(given) * direction), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_extreme_inputs_give_finite_values_and_gradients(gradient, dtype):
    varied, _ = case(positions=300, channels=64)
    bases = concept.draw_bases(jax.random.key(0), 2, 64, 16)

    @jax.jit
    def value_and_gradient(inputs):
        output, pull = jax.vjp(
            lambda x: concept.reconstruct(x, bases, num_steps=6, gradient=gradient),
            inputs,
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
        # The ridge shrinks: no position grows, and nothing comes from nothing.
        assert np.all(np.sum(output**2, axis=2) <= 1.01 * np.sum(inputs**2, axis=2))


def test_unknown_gradient_is_an_error():
    inputs, bases = map(jnp.float32, case())
    with pytest.raises(ValueError, match="one of full, one_step: got 'none'"):
        concept.reconstruct(inputs, bases, num_steps=1, gradient="none")
