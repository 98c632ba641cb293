import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.decomposition import vq


def choose(x, d, eps_in, floor):
    """Soft assignment of columns of x [channels, positions]; t = 100."""
    size = np.linalg.norm(x, axis=0)
    x = x / (
        np.maximum(size, 1e-12) + eps_in if floor is None else np.maximum(size, floor)
    )
    d = d / np.maximum(np.linalg.norm(d, axis=0), 1e-6)
    scores = 100 * (d.T @ x)
    scores = np.exp(scores - scores.max(axis=0))
    return scores / scores.sum(axis=0)


def iterate(inputs, bases, num_steps):
    x, d = inputs.T, bases
    for _ in range(num_steps):
        c = choose(x, d, 0, floor=1e-12)
        d = x @ (c / (c.sum(axis=1, keepdims=True) + 1e-6)).T
    return d


def statement(inputs, bases, num_steps):
    """The update rules for one image, in plain NumPy."""
    d = iterate(inputs, bases, num_steps)
    return (d @ choose(inputs.T, d, 1e-6, floor=None)).T


def case(batch=2, positions=35, channels=12, rank=5):
    generator = np.random.default_rng(0)
    inputs = np.maximum(generator.standard_normal((batch, positions, channels)), 0)
    bases = generator.standard_normal((batch, channels, rank))
    return inputs, bases / np.linalg.norm(bases, axis=1, keepdims=True)


@pytest.mark.parametrize("num_steps", [0, 7])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_equals_the_plain_statement(num_steps, gradient):
    inputs, bases = case()
    inputs[0, 3] = 0  # A position that no unit has fired at.
    with jax.enable_x64(True):
        reconstruct = functools.partial(
            vq.reconstruct, num_steps=num_steps, gradient=gradient
        )
        given = jax.jit(reconstruct)(jnp.asarray(inputs), jnp.asarray(bases))
        assert given.dtype == jnp.float64
    for image in range(len(inputs)):
        wanted = statement(inputs[image], bases[image], num_steps)
        np.testing.assert_allclose(given[image], wanted, rtol=1e-10)


def gradients(inputs, bases, loss, gradient):
    """The derivative along a direction: by JAX, and by differences of `loss`."""
    generator = np.random.default_rng(1)
    weights, direction = generator.standard_normal((2, *inputs.shape))
    step = 1e-6
    ends = [
        np.sum(weights[0] * loss(inputs[0] + sign * step * direction[0]))
        for sign in (1, -1)
    ]
    with jax.enable_x64(True):
        given = jax.jit(
            jax.grad(
                lambda x: jnp.sum(
                    weights
                    * vq.reconstruct(
                        x, jnp.asarray(bases), num_steps=3, gradient=gradient
                    )
                )
            )
        )(jnp.asarray(inputs))
    return np.sum(np.asarray(given) * direction), (ends[0] - ends[1]) / (2 * step)


def test_full_gradient_is_that_of_all_steps():
    inputs, bases = case(batch=1)
    given, wanted = gradients(
        inputs, bases, lambda x: statement(x, bases[0], 3), "full"
    )
    np.testing.assert_allclose(given, wanted, rtol=1e-6)


def test_one_step_gradient_is_that_of_the_last_choice_at_fixed_length():
    inputs, bases = case(batch=1)
    d = iterate(inputs[0], bases[0], 3)
    size = np.linalg.norm(inputs[0], axis=1, keepdims=True) + 1e-6

    def last(x):
        scores = 100 * (x / size) @ (d / np.linalg.norm(d, axis=0))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True) @ d.T

    given, wanted = gradients(inputs, bases, last, "one_step")
    np.testing.assert_allclose(given, wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient", ["full", "one_step"])
def test_extreme_inputs_give_finite_values_and_gradients(gradient, dtype):
    varied, _ = case(positions=300, channels=64)
    bases = vq.draw_bases(jax.random.key(0), 2, 64, 16)

    @jax.jit
    def value_and_gradient(inputs):
        output, pull = jax.vjp(
            lambda x: vq.reconstruct(x, bases, num_steps=6, gradient=gradient), inputs
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
        # One cluster is recovered, to the precision of the type.
        if name != "varied":
            precision = 1e-5 if dtype == "float32" else 1e-2
            np.testing.assert_allclose(output, inputs, rtol=precision)


def test_clusters_far_apart_are_found():
    """Each position is given the mean of its own cluster."""
    generator = np.random.default_rng(0)
    centres = np.eye(3, 12)
    cluster = generator.integers(0, 3, 60)
    inputs = centres[cluster] + 0.01 * generator.standard_normal((60, 12))
    bases = (centres + 0.1).T[None]
    given = vq.reconstruct(
        jnp.asarray(inputs[None], jnp.float32),
        jnp.asarray(bases, jnp.float32),
        num_steps=6,
    )
    means = np.stack([inputs[cluster == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(given[0], means[cluster], atol=1e-5)


def test_bases_are_signed_and_have_unit_length():
    bases = vq.draw_bases(jax.random.key(3), 2, 12, 5)
    assert bases.shape == (2, 12, 5)
    assert bases.min() < 0 < bases.max()
    np.testing.assert_allclose(np.linalg.norm(bases, axis=1), 1, rtol=1e-6)


def test_unknown_gradient_is_an_error():
    inputs, bases = map(jnp.float32, case())
    with pytest.raises(ValueError, match="one of full, one_step: got 'none'"):
        vq.reconstruct(inputs, bases, num_steps=1, gradient="none")
