import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import group_norm as module
from segnext_jax.ops.group_norm import group_norm

OPTIONS = {"num_groups": 4, "epsilon": 1e-5}


def case(dtype=np.float64):
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 3, 5, 12)) + np.arange(12)
    weights = generator.standard_normal((2, 12))
    return [array.astype(dtype) for array in (images, *weights)]


@pytest.mark.parametrize("has_relu", [False, True])
def test_values_and_gradients_equal_torch(has_relu):
    torch = pytest.importorskip("torch", reason="compares with torch")
    with jax.enable_x64(True):
        arguments = case()
        theirs = [torch.tensor(array, requires_grad=True) for array in arguments]
        maps = theirs[0].permute(0, 3, 1, 2)
        output = torch.nn.functional.group_norm(maps, 4, *theirs[1:], eps=1e-5)
        output = output.relu() if has_relu else output
        wanted = output.permute(0, 2, 3, 1)
        wanted.sin().sum().backward()

        def given(function):
            def total(*arguments):
                output = function(*arguments)
                return jnp.sum(jnp.sin(output)), output

            gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
            (_, output), gradients = jax.jit(gradient)(*arguments)
            return output, *gradients

        plain = given(functools.partial(group_norm, has_relu=has_relu, **OPTIONS))
        options = (4, 1e-5, has_relu)
        own = given(functools.partial(module._normalize, options))
    for results in (plain, own):
        for ours, other in zip(
            results, (wanted.detach(), *(t.grad for t in theirs)), strict=True
        ):
            np.testing.assert_allclose(ours, other, rtol=1e-9, atol=1e-9)


def test_short_types_are_rounded_once():
    arguments = case(jnp.bfloat16)
    normalize = jax.jit(functools.partial(group_norm, **OPTIONS))
    given, wanted = normalize(*arguments), normalize(*map(np.float32, arguments))
    assert given.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(given), wanted, rtol=2**-8, atol=1e-2)
