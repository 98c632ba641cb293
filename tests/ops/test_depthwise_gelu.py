import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import depthwise_gelu as module
from segnext_jax.ops.batch_norm import Normalized
from segnext_jax.ops.depthwise_gelu import (
    depthwise_gelu,
    depthwise_gelu_residual,
    gradients_by_kernels,
)
from segnext_jax.ops.kernels import depthwise_gelu as kernels
from segnext_jax.ops.kernels.targets import Target
from segnext_jax.ops.sharding import batch_sharding, make_mesh, replicated

TARGETS = [Target(is_tpu, interpret=True) for is_tpu in (False, True)]


def jitted(function, target):
    return jax.jit(functools.partial(function, target=target))


def case(shape, size=(3, 3), dtype=np.float64):
    generator = np.random.default_rng(0)
    shapes = (shape, (*size, shape[-1]), shape[-1:], shape[-1:], shape)
    arrays = map(generator.standard_normal, shapes)
    return [array.astype(dtype) for array in arrays]


@jax.jit
def separate(*arguments):
    """Result and gradients of the operations one after the other."""
    *arguments, cotangent = arguments
    function = functools.partial(depthwise_gelu, implementation="grouped")
    result, pull = jax.vjp(function, *arguments)
    return result, pull(cotangent)


@pytest.mark.parametrize("target", TARGETS, ids=["gpu", "tpu"])
@pytest.mark.parametrize(
    ("shape", "size"),
    # Several programs of columns and of rows; channels that do not fill their block.
    [((2, 21, 70, 3), (3, 3)), ((1, 5, 6, 24), (5, 1)), ((1, 2, 3, 160), (1, 5))],
)
def test_kernels_equal_convolution_and_gelu(shape, size, target):
    arguments = case(shape, size)
    with jax.enable_x64(True):
        given = jitted(kernels.values, target)(*arguments[:-1])
        gradients = jitted(gradients_by_kernels, target)(*arguments)
        wanted, wanted_gradients = separate(*arguments)
    check = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
    check(given, wanted)
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        check(ours, theirs)


@pytest.mark.parametrize("target", TARGETS, ids=["gpu", "tpu"])
def test_float32_has_the_error_of_the_gelu(target):
    arguments = case((1, 5, 6, 8), dtype=np.float32)
    given = jitted(kernels.values, target)(*arguments[:-1])
    with jax.enable_x64(True):
        exact, _ = separate(*map(np.float64, arguments))
    # Nine terms of size 1, and the 4e-7 of ops/gelu.py.
    np.testing.assert_allclose(given, exact, rtol=2e-6, atol=2e-6)


def test_other_platforms_have_convolution_and_gelu_one_after_the_other():
    arguments = case((2, 7, 5, 6), dtype=np.float32)

    def pull(implementation):
        function = functools.partial(depthwise_gelu, implementation=implementation)

        def both(*arguments):
            output, pull = jax.vjp(function, *arguments[:-1])
            return output, pull(arguments[-1])

        return jax.jit(both)(*arguments)

    jax.tree.map(np.testing.assert_array_equal, pull("auto"), pull("shifted"))


@pytest.mark.parametrize("target", TARGETS, ids=["gpu", "tpu"])
def test_devices_that_share_a_batch_each_compute_their_images(target):
    arguments = case((8, 6, 7, 8), (1, 3), np.float32)
    mesh = make_mesh()
    spread, whole = batch_sharding(mesh), replicated(mesh)

    def pull(*arguments):
        return gradients_by_kernels(*arguments, target=target)

    divided = jax.jit(
        pull,
        in_shardings=(spread, whole, whole, whole, spread),
        out_shardings=(spread, whole, whole, whole),
    )
    # A lowering for TPUs sets the program's mesh.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        compiled = divided.lower(*arguments).compile()
        given = compiled(*arguments)
    # One image each; what is exchanged are sums.
    text = compiled.as_text()
    assert "all-reduce" in text and "all-gather" not in text
    _, wanted = separate(*arguments)
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size", "features"),
    [((2, 21, 37, 32), (3, 3), 16), ((1, 9, 9, 64), (3, 1), 32)],
)
def test_the_joined_kernel_has_the_gradient_of_the_product(shape, size, features):
    with jax.enable_x64(True):
        images, kernel, bias, image_bias, _ = case(shape, size)
        last, _, scale, *_ = case((1, 1, shape[-1], features))
        last = last[0, 0]
        cotangent = case((*shape[:3], features))[0]
        factors = np.linspace(0.5, 2, 3 * shape[0]).reshape(shape[0], 3)
        weights = kernel, bias, image_bias
        joined = functools.partial(kernels.joined_gradients, branch=1, interpret=True)
        given = jax.jit(joined)(images, cotangent, factors, last, scale, *weights)
        inner = np.einsum("bhwf,cf->bhwc", cotangent * scale, last)
        inner = inner * factors[:, 1, None, None, None]
        wanted = jitted(kernels.gradients, TARGETS[0])(images, inner, *weights)
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("has_factors", [False, True])
def test_the_residual_has_the_gradients_of_the_operations(monkeypatch, has_factors):
    with jax.enable_x64(True):
        images, *weights, _ = case((2, 4, 9, 32))
        last = case((1, 1, 32, 16))[-1][0, 0], np.arange(16.0)
        shortcut, *_ = case((2, 4, 9, 16))
        scale = np.linspace(-1, 2, 16)
        factors = jnp.asarray([[1, 0], [1, 1.25]]) if has_factors else None

        def loss(*arguments):
            *first, shortcut = arguments
            normalized = Normalized(shortcut, None, *[scale] * 4, 1e-5)
            images, weights, last, scale_of_branch = first
            output = depthwise_gelu_residual(
                *(images, *weights, last, scale_of_branch, factors, normalized),
                branch=1 if has_factors else 0,
            )
            return jnp.sum(jnp.sin(output))

        arguments = images, tuple(weights), last, scale, shortcut
        numbers = tuple(range(len(arguments)))
        slopes = jax.value_and_grad(loss, numbers)
        # `joins` is asked while a program is traced: each call makes a program anew.
        wanted = jax.jit(lambda *arguments: slopes(*arguments))(*arguments)
        monkeypatch.setattr(module, "joins", lambda *_: True)
        given = jax.jit(lambda *arguments: slopes(*arguments))(*arguments)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    jax.tree.map(compare, given, wanted)
