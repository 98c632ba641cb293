import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import joined_pointwise, sharding
from segnext_jax.ops.joined_pointwise import (
    gated_pointwise,
    normalized_pointwise,
    relu_pointwise,
    scaled_residual,
)

EPSILON = 1e-5


def branch(arguments, moments, has_factors, has_shortcut, has_gelu):
    """All three operations, as in a block."""
    images, scales, first, gate, last, factors = arguments
    hidden, normalized = normalized_pointwise(
        *(images, *scales[:2], moments, EPSILON),
        kernel=first[0],
        offset=first[1] if has_gelu else None,
        has_gelu=has_gelu,
    )
    hidden = relu_pointwise(hidden, *gate)
    hidden = gated_pointwise(hidden, *gate, gate=jnp.sin(hidden))
    output = scaled_residual(
        *(hidden, *last, scales[2]),
        factors if has_factors else None,
        normalized,
        branch=1,
        has_shortcut=has_shortcut,
    )
    return output, (normalized.mean, normalized.var)


def case(draw, channels=16, hidden=32):
    images = draw(2, 3, 5, channels) + 2
    scales = tuple(draw(channels) for _ in range(3))
    first, last = draw(channels, hidden), draw(hidden, channels)
    gate = draw(hidden, hidden), draw(hidden)
    factors = np.asarray([[1, 0], [1, 1.25]])
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
        generator = np.random.default_rng(0)

        def draw(*shape):
            return generator.standard_normal(shape)

        arguments = case(draw)
        moments = (draw(16), np.exp(draw(16))) if has_moments else None

        def loss(arguments, moments):
            output, found = branch(
                arguments, moments, in_training, is_attention, is_attention
            )
            # Those of a batch are no output that others may derive.
            more = [jnp.sum(jnp.cos(m)) for m in found] if has_moments else []
            return jnp.sum(jnp.sin(output)) + sum(more)

        def slopes():
            which = (0, 1) if has_moments else 0
            return jax.jit(jax.value_and_grad(loss, which))(arguments, moments)

        wanted = slopes()
        monkeypatch.setattr(joined_pointwise, "joins", lambda *_: True)
        given = slopes()
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    jax.tree.map(compare, given, wanted)


@pytest.mark.parametrize(("num_devices", "is_there"), [(1, False), (8, True)])
def test_results_of_more_than_32_bits_have_kernels_where_each_part_has_fewer(
    num_devices, is_there
):
    """The hidden maps of 128 images of 256x256, whose own maps are few enough."""
    mesh = sharding.make_mesh(devices=jax.devices()[:num_devices])

    def shape(*dims, spread):
        return jax.ShapeDtypeStruct(dims, jnp.bfloat16, sharding=spread)

    whole = sharding.replicated(mesh)
    given = (
        shape(128, 256, 256, 32, spread=sharding.batch_sharding(mesh)),
        *(shape(32, 256, spread=whole), shape(256, spread=whole)),
    )
    traced = jax.jit(relu_pointwise).trace(*given)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert ("@CustomSPMDPartitioning" in text) == is_there
