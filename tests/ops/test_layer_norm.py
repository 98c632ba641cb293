import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import layer_norm as module
from segnext_jax.ops.layer_norm import layer_norm


@pytest.mark.parametrize(
    "function",
    [lambda *a: layer_norm(*a, 1e-5), functools.partial(module._short, 1e-5)],
    ids=["derived", "short"],
)
def test_values_and_gradients_equal_torch(function):
    torch = pytest.importorskip("torch", reason="compares with torch")
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal((2, 3, 5, 12)) + 4,
        *generator.standard_normal((2, 12)),
    ]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    wanted = torch.nn.functional.layer_norm(theirs[0], (12,), *theirs[1:], eps=1e-5)
    wanted.sin().sum().backward()

    @jax.jit
    def both(*arrays):
        output, pull = jax.vjp(function, *arrays)
        return output, pull(jnp.cos(output))

    with jax.enable_x64(True):
        output, gradients = both(*arrays)
    results = wanted.detach(), *(array.grad for array in theirs)
    for ours, other in zip((output, *gradients), results, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-9, atol=1e-9)


def test_short_types_keep_the_statistics_in_float32():
    images = (300 + np.arange(24.0).reshape(1, 1, 2, 12)).astype(jnp.bfloat16)
    weights = np.float32(np.ones(12)), np.float32(np.zeros(12))
    normalize = jax.jit(functools.partial(layer_norm, epsilon=1e-5))
    given, wanted = (normalize(x, *weights) for x in (images, np.float32(images)))
    assert given.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(given), wanted, rtol=2**-8)
