import functools

import jax
import numpy as np
import pytest

from segnext_jax.ops.kernels import pointwise as kernels
from segnext_jax.ops.kernels.pointwise import Maps, Options, Summed, Weights
from segnext_jax.ops.products import (
    composed_product,
    composed_sums,
    divided_product,
    divided_sums,
)
from segnext_jax.ops.sharding import batch_sharding, make_mesh, replicated


def draws():
    """Return a function that draws arrays of a shape."""
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape)


def products(draw, shape, channels, features):
    """Every operand alone, all together, and a turned kernel."""
    images, kernel = draw(*shape, channels), draw(channels, features)
    whole = {
        "times": draw(*shape, channels),
        "factors": draw(shape[0], 3),
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
    yield (
        everything,
        Weights(kernel, slope=slope, **shared),
        Options(has_gelu=True, branch=1, keeps_linear=True),
    )
    yield Maps(images), Weights(kernel.T), Options(is_turned=True)
    added = Maps(images, second=second), Weights(kernel, slope=slope)
    yield *added, Options()
    yield *added, Options(has_relu=True, adds_second=True)
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
    *operands, options = zip(*products(draws(), shape, channels, features), strict=True)

    def both(maps, weights, options):
        given = kernels.product(maps, weights, options=options, interpret=True)
        return given, composed_product(maps, weights, options=options)

    with jax.enable_x64(True):
        results = jax.jit(lambda *each: list(map(both, *each, options)))(*operands)
    for given, wanted in results:
        for ours, theirs in zip(given, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("shape", "channels", "features"),
    [((2, 19, 37), 48, 32), ((3, 2, 5), 256, 16), ((1, 3, 60), 16, 144)],
)
def test_the_sums_kernel_equals_the_operations(shape, channels, features):
    draw = draws()
    maps = Summed(draw(*shape, channels), draw(*shape, features))
    more = {
        "times": draw(*shape, features),
        "factors": draw(shape[0], 3),
        "beside": draw(*shape, features),
    }
    centres = draw(channels), draw(features)
    cases = (
        (maps, None, None),
        (maps._replace(**more), *centres),
        (maps._replace(beside=more["beside"]), None, centres[1]),
    )

    @jax.jit
    def both(*arguments):
        given = kernels.pixel_sums(*arguments, branch=2, interpret=True)
        return given, composed_sums(*arguments, branch=2)

    with jax.enable_x64(True):
        for arguments in cases:
            given, wanted = both(*arguments)
            np.testing.assert_allclose(given, wanted, rtol=1e-11, atol=1e-11)


def test_devices_that_share_a_batch_exchange_sums_alone():
    draw = draws()
    arrays = draw(8, 3, 5, 16), draw(8, 3, 5, 32), draw(8, 2), draw(16), draw(16, 32)
    arrays = tuple(array.astype(np.float32) for array in arrays)
    mesh = make_mesh()
    spread, whole = batch_sharding(mesh), replicated(mesh)

    def both(images, cotangent, factors, centre, kernel, *, is_divided):
        maps = Maps(images, factors=factors), Weights(kernel, gain=centre)
        summed = Summed(images, cotangent, factors=factors), centre, None
        options = Options(branch=1)
        if is_divided:
            return (
                divided_product(*maps, options=options, interpret=True),
                divided_sums(*summed, branch=1, interpret=True),
            )
        return (
            composed_product(*maps, options=options),
            composed_sums(*summed, branch=1),
        )

    divided = jax.jit(
        functools.partial(both, is_divided=True),
        in_shardings=(spread, spread, spread, whole, whole),
        out_shardings=([spread], whole),
    )
    compiled = divided.lower(*arrays).compile()
    text = compiled.as_text()
    assert "all-reduce" in text and "all-gather" not in text
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    wanted = jax.jit(functools.partial(both, is_divided=False))(*arrays)
    jax.tree.map(compare, compiled(*arrays), wanted)
