import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import joined_pointwise
from segnext_jax.ops.joined_pointwise import (
    composed_product,
    composed_sums,
    gated_pointwise,
    normalized_pointwise,
    scaled_residual,
)
from segnext_jax.ops.kernels import pointwise as kernels
from segnext_jax.ops.kernels.pointwise import Maps, Options, Summed, Weights

EPSILON = 1e-5


class Draws:
    """Arrays of a seed, one after the other."""

    def __init__(self, dtype=np.float64):
        self.generator, self.dtype = np.random.default_rng(0), dtype

    def __call__(self, *shape):
        return jnp.asarray(self.generator.standard_normal(shape), self.dtype)


def products(draw, shape, channels, features):
    """Every operand alone, all together, and a turned kernel."""
    images, kernel = draw(*shape, channels), draw(channels, features)
    whole = {
        "times": draw(*shape, channels),
        "factors": draw(shape[0]),
        "gate": draw(*shape, features),
        "shortcut": draw(*shape, features),
    }
    shared = {
        "gain": draw(channels),
        "shift": draw(channels),
        "result_gain": draw(features),
        "bias": draw(features),
        "scale": draw(features),
    }
    second, slope = draw(*shape, features), draw(features)
    everything = Maps(images, second=second, **whole)
    yield everything, Weights(kernel, slope=slope, **shared), Options(False, True, True)
    yield Maps(images), Weights(kernel.T), Options(is_turned=True)
    yield Maps(images, second=second), Weights(kernel, slope=slope), Options()
    for name, array in whole.items():
        yield Maps(images)._replace(**{name: array}), Weights(kernel), Options()
    for name, array in shared.items():
        yield Maps(images), Weights(kernel)._replace(**{name: array}), Options()


@pytest.mark.parametrize(
    ("shape", "channels", "features"),
    # Pixels that do not fill their blocks; several blocks of channels and of features.
    [((2, 9, 17), 48, 32), ((3, 2, 5), 256, 16), ((1, 3, 60), 16, 144)],
)
def test_the_products_kernel_equals_the_operations(shape, channels, features):
    with jax.enable_x64(True):
        for maps, weights, options in products(Draws(), shape, channels, features):
            function = functools.partial(kernels.product, options=options)
            given = jax.jit(functools.partial(function, interpret=True))(maps, weights)
            wanted = composed_product(maps, weights, options=options)
            for ours, theirs in zip(given, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("shape", "channels", "features"),
    [((2, 19, 37), 48, 32), ((3, 2, 5), 256, 16), ((1, 3, 60), 16, 144)],
)
def test_the_sums_kernel_equals_the_operations(shape, channels, features):
    with jax.enable_x64(True):
        draw = Draws()
        maps = Summed(draw(*shape, channels), draw(*shape, features))
        more = {
            "times": draw(*shape, features),
            "factors": draw(shape[0]),
            "beside": draw(*shape, features),
        }
        centres = draw(channels), draw(features)
        for arguments in (
            (maps, None, None),
            (maps._replace(**more), *centres),
            (maps._replace(beside=more["beside"]), None, centres[1]),
        ):
            function = functools.partial(kernels.pixel_sums, interpret=True)
            given, wanted = jax.jit(function)(*arguments), composed_sums(*arguments)
            np.testing.assert_allclose(given, wanted, rtol=1e-11, atol=1e-11)


def branch(arguments, moments, has_factors, has_shortcut, has_gelu):
    """All three operations, as in a block."""
    images, scales, first, gate, last, factors = arguments
    hidden, normalized = normalized_pointwise(
        *(images, *scales[:2], moments, EPSILON),
        kernel=first[0],
        offset=first[1] if has_gelu else None,
        has_gelu=has_gelu,
    )
    hidden = gated_pointwise(hidden, *gate, gate=jnp.sin(hidden))
    output = scaled_residual(
        *(hidden, *last, scales[2]),
        factors if has_factors else None,
        normalized,
        has_shortcut=has_shortcut,
    )
    return output, (normalized.mean, normalized.var)


def case(draw, channels=16, hidden=32):
    images = draw(2, 3, 5, channels) + 2
    scales = tuple(draw(channels) for _ in range(3))
    first, last = draw(channels, hidden), draw(hidden, channels)
    gate = draw(hidden, hidden), draw(hidden)
    factors = jnp.asarray([0, 1.25], images.dtype)
    return (
        *(images, scales, (first, draw(hidden)), gate, (last, draw(channels))),
        factors,
    )


@pytest.mark.parametrize("has_moments", [False, True])
@pytest.mark.parametrize("in_training", [False, True])
@pytest.mark.parametrize("is_attention", [False, True])
def test_values_and_gradients_are_those_of_the_operations(
    monkeypatch, has_moments, in_training, is_attention
):
    with jax.enable_x64(True):
        draw = Draws()
        arguments = case(draw)
        moments = (draw(16), jnp.exp(draw(16))) if has_moments else None

        def loss(arguments, moments):
            output, found = branch(
                arguments, moments, in_training, is_attention, is_attention
            )
            # Those of a batch are no output that others may derive.
            more = [jnp.sum(jnp.cos(m)) for m in found] if has_moments else []
            return jnp.sum(jnp.sin(output)) + sum(more)

        def slopes():
            which = (0, 1) if has_moments else 0
            return jax.value_and_grad(loss, which)(arguments, moments)

        wanted = slopes()
        monkeypatch.setattr(joined_pointwise, "joins", lambda *_: True)
        given = slopes()
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    jax.tree.map(compare, given, wanted)
