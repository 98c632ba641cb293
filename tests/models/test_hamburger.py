import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.models.hamburger import Hamburger, LightHamHead
from segnext_jax.ops import nmf

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 5, 32)).astype(np.float32)
draw_bases = jax.jit(nmf.draw_bases, static_argnums=(1, 2, 3))


@pytest.fixture(scope="module")
def variables():
    generator = np.random.default_rng(1)
    kernels = generator.standard_normal((2, 32, 32), np.float32) / 5
    ones, zeros = np.ones(32, np.float32), np.zeros(32, np.float32)
    return {
        "params": {
            "ham_in": {"conv": {"kernel": kernels[0], "bias": zeros + 0.1}},
            "ham_out": {
                "conv": {"kernel": kernels[1]},
                "gn": {"scale": ones, "bias": zeros},
            },
        }
    }


@functools.cache
def compiled(train, **fields):
    model = Hamburger(rank=4, **fields)
    return jax.jit(lambda v, x, b, rngs: model.apply(v, x, b, train, rngs=rngs))


def apply(variables, bases=None, train=False, rngs=None, **fields):
    return np.asarray(compiled(train, **fields)(variables, IMAGES, bases, rngs))


def test_ham_lies_between_its_two_layers(variables):
    params = variables["params"]
    dense = params["ham_in"]["conv"]
    hidden = np.maximum(IMAGES @ dense["kernel"] + dense["bias"], 0)
    bases = draw_bases(jax.random.key(7), 2, 32, 4)
    reconstruct = jax.jit(functools.partial(nmf.reconstruct, num_steps=7))
    hidden = np.asarray(reconstruct(hidden.reshape(2, 15, 32), bases))
    hidden = hidden.reshape(IMAGES.shape) @ params["ham_out"]["conv"]["kernel"]
    # GroupNorm of 32 groups over 32 channels: each channel over its pixels.
    mean, var = (f(hidden, axis=(1, 2), keepdims=True) for f in (np.mean, np.var))
    wanted = np.maximum(IMAGES + (hidden - mean) / np.sqrt(var + 1e-5), 0)
    given = apply(variables, bases)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)


def test_gradient_changes_no_value(variables):
    np.testing.assert_array_equal(
        apply(variables, gradient="one_step"), apply(variables, gradient="full")
    )


def test_order_of_linear_steps_changes_values_and_gradients_by_rounding_alone():
    generator = np.random.default_rng(2)
    features = [generator.normal(size=(2, 32 // s, 48 // s, 8)) for s in (1, 2, 4, 8)]
    heads = [
        LightHamHead(
            *(5, 32, 4),
            official_order=official,
            dtype=np.float64,
            param_dtype=np.float64,
        )
        for official in (False, True)
    ]
    weights = generator.normal(size=(2, 16, 24, 5))

    def loss(params, features, head):
        logits = head.apply({"params": params}, features)
        return jnp.sum(weights * logits), logits

    compute = jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)
    with jax.enable_x64(True):
        params = jax.jit(heads[0].init)(jax.random.key(0), features)["params"]
        found = [jax.device_get(compute(params, features, head)) for head in heads]
    assert np.abs(found[0][1]).max() > 1e-3
    for ours, official in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(ours, official, rtol=0, atol=1e-9)


def test_fixed_bases_follow_the_seed_alone_and_are_those_of_every_image(variables):
    default = apply(variables)
    rngs = {"nmf": jax.random.key(9)}
    np.testing.assert_array_equal(default, apply(variables, rngs=rngs))
    assert np.abs(default - apply(variables, eval_seed=1)).max() > 1e-3
    bases = np.repeat(draw_bases(jax.random.key(0), 1, 32, 4), 2, axis=0)
    np.testing.assert_allclose(default, apply(variables, bases), rtol=1e-5, atol=1e-6)


def test_random_bases_follow_the_key_as_in_training(variables):
    first, again, other = (
        apply(variables, rngs={"nmf": jax.random.key(seed)}, eval_bases="random")
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    trained = apply(
        variables, train=True, rngs={"nmf": jax.random.key(1)}, train_steps=7
    )
    np.testing.assert_allclose(first, trained, rtol=1e-5, atol=1e-6)


def test_bad_settings_are_named(variables):
    with pytest.raises(ValueError, match="must be one of fixed, random: got 'drawn'"):
        apply(variables, eval_bases="drawn")
    with pytest.raises(ValueError, match="must be one of full, one_step: got 'none'"):
        apply(variables, gradient="none")
    with pytest.raises(ValueError, match="only be drawn with the rng 'nmf'"):
        apply(variables, eval_bases="random")
    with pytest.raises(ValueError, match="only be drawn with the rng 'nmf'"):
        apply(variables, train=True)
