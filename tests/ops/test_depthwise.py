import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from segnext_jax.ops.depthwise import depthwise_conv

KERNEL_SIZES = [(5, 5), (3, 3), (1, 7), (7, 1), (1, 21), (21, 1), (1, 1)]


def case(kernel_size, shape=(2, 9, 14, 6)):
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal(shape),
        generator.standard_normal((*kernel_size, shape[-1])),
        generator.standard_normal(shape[-1]),
    )


def convolution(images, kernel, bias):
    """XLA's own grouped convolution, one group per channel."""
    height, width, channels = kernel.shape
    output = lax.conv_general_dilated(
        images,
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding=[(height // 2, height // 2), (width // 2, width // 2)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
    return output + bias[None, None, None]


@pytest.mark.parametrize(
    ("kernel_size", "implementation"),
    [(size, "shifted") for size in KERNEL_SIZES] + [((5, 3), "grouped")],
)
def test_values_and_gradients_equal_those_of_a_convolution(kernel_size, implementation):
    arguments = case(kernel_size)
    cotangent = np.random.default_rng(1).standard_normal(arguments[0].shape)

    def ours(images, kernel, bias):
        return depthwise_conv(images, kernel, bias, implementation=implementation)

    def value_and_gradients(function):
        @jax.jit
        def compute(cotangent, *arguments):
            output, pull = jax.vjp(function, *arguments)
            return output, *pull(cotangent)

        return compute(jnp.asarray(cotangent), *map(jnp.asarray, arguments))

    with jax.enable_x64(True):
        given = value_and_gradients(ours)
        wanted = value_and_gradients(convolution)
    for array, wanted_array in zip(given, wanted, strict=True):
        np.testing.assert_allclose(array, wanted_array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [(3, 5), (7, 1)])
def test_second_derivatives_equal_those_of_a_convolution(kernel_size):
    """Of a loss that is not quadratic in the output: all blocks of the Hessian."""
    images, kernel, bias = case(kernel_size, shape=(1, 5, 6, 2))
    generator = np.random.default_rng(1)
    directions = [generator.standard_normal(a.shape) for a in (images, kernel)]

    def hessian_product(function):
        def loss(images, kernel):
            return jnp.sum(jnp.sin(function(images, kernel, jnp.asarray(bias))))

        def slope(images, kernel):
            gradients = jax.grad(loss, argnums=(0, 1))(images, kernel)
            return sum(
                jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True)
            )

        return jax.grad(slope, argnums=(0, 1))(jnp.asarray(images), jnp.asarray(kernel))

    with jax.enable_x64(True):
        given = jax.jit(lambda: hessian_product(depthwise_conv))()
        wanted = jax.jit(lambda: hessian_product(convolution))()
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("kernel_size", "jit"),
    [((3, 5), jax.jit), ((7, 1), jax.jit), ((7, 1), lambda function: function)],
)
def test_forward_derivatives_equal_those_of_a_convolution(kernel_size, jit):
    """The Jacobian, forward over reverse, and reverse over forward."""
    arguments = case(kernel_size, shape=(1, 5, 6, 2))
    generator = np.random.default_rng(1)
    directions = tuple(generator.standard_normal(a.shape) for a in arguments)

    def derivatives(function):
        def loss(*arguments):
            return jnp.sum(jnp.sin(function(*arguments)))

        def along(*arguments):
            return jax.jvp(loss, arguments, directions)[1]

        slopes = jax.grad(loss, argnums=(0, 1, 2))
        return (
            *jax.jacfwd(function, argnums=(0, 1, 2))(*arguments),
            *jax.jvp(slopes, arguments, directions)[1],
            *jax.grad(along, argnums=(0, 1, 2))(*arguments),
        )

    with jax.enable_x64(True):
        arguments, directions = (
            tuple(map(jnp.asarray, arrays)) for arrays in (arguments, directions)
        )
        given = jit(lambda: derivatives(depthwise_conv))()
        wanted = jax.jit(lambda: derivatives(convolution))()
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_plain_sum_over_the_window():
    images, kernel, bias = case((3, 5), shape=(1, 4, 7, 2))
    padded = np.pad(images, ((0, 0), (1, 1), (2, 2), (0, 0)))
    wanted = np.zeros_like(images)
    for y in range(4):
        for x in range(7):
            window = padded[0, y : y + 3, x : x + 5]
            wanted[0, y, x] = bias + np.sum(window * kernel, axis=(0, 1))
    with jax.enable_x64(True):
        given = depthwise_conv(*map(jnp.asarray, (images, kernel, bias)))
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


def test_bfloat16_is_summed_in_float32():
    images, kernel, _ = (array.astype(jnp.bfloat16) for array in case((5, 5)))
    given = jax.jit(depthwise_conv)(images, kernel)
    assert given.dtype == jnp.bfloat16
    exact = jax.jit(convolution)(*map(np.float32, (images, kernel, np.zeros(6))))
    # The result alone is rounded: half a unit in the last of 8 bits.
    np.testing.assert_allclose(
        np.asarray(given, np.float32), exact, rtol=2**-8, atol=1e-6
    )


def test_even_kernels_and_unknown_implementations_are_errors():
    images, kernel, bias = (jnp.asarray(a, jnp.float32) for a in case((3, 3)))
    with pytest.raises(ValueError, match="must have odd sizes.*got 2x3"):
        depthwise_conv(images, kernel[:2], bias)


def test_devices_exchange_the_kernels_gradient_once():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    by_image = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def loss(kernel, images):
        return jnp.sum(depthwise_conv(images, kernel) ** 2)

    program = (
        jax.jit(jax.grad(loss), in_shardings=(whole, by_image), out_shardings=whole)
        .lower(jnp.ones((3, 5, 6)), jnp.ones((8, 9, 10, 6)))
        .compile()
        .as_text()
    )
    exchanged = re.findall(r"= (\S+) all-reduce\(", program)
    # One for all 15 taps, not one for each in the loop.
    assert len(exchanged) == 1
    assert math.prod(map(int, re.findall(r"\d+", exchanged[0].split("{")[0])[1:])) == 90
