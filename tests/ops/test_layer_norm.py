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
    with jax.enable_x64(True):
        output, pull = jax.vjp(function, *map(jnp.asarray, arrays))
        gradients = pull(jnp.cos(output))
    results = wanted.detach(), *(array.grad for array in theirs)
    for ours, other in zip((output, *gradients), results, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-9, atol=1e-9)


def test_short_types_keep_the_statistics_in_float32():
    images = 300 + jnp.asarray(np.arange(24.0).reshape(1, 1, 2, 12), jnp.bfloat16)
    weights = jnp.ones(12), jnp.zeros(12)
    given = layer_norm(images, *weights, 1e-5)
    wanted = layer_norm(images.astype(jnp.float32), *weights, 1e-5)
    assert given.dtype == jnp.bfloat16
    np.testing.assert_allclose(given.astype(jnp.float32), wanted, rtol=2**-8)
