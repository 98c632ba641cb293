import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from segnext_jax.ops.stride_two import stride_two_conv


def convolution(images, kernel, bias):
    output = lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return output + bias[None, None, None]


def case(size, channels):
    generator = np.random.default_rng(0)
    shapes = (2, *size, channels), (3, 3, channels, 5), (5,)
    return [generator.standard_normal(shape) for shape in shapes]


# With 32 channels and more the forward pass is a product, too.
@pytest.mark.parametrize("channels", [3, 33])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (6, 5), (1, 1)])
def test_values_and_gradients_equal_those_of_a_convolution(size, channels):
    arguments = case(size, channels)

    def value_and_gradients(function):
        @jax.jit
        def compute(*arguments):
            output, pull = jax.vjp(function, *arguments)
            return output, *pull(jnp.cos(output))

        return compute(*map(jnp.asarray, arguments))

    with jax.enable_x64(True):
        given = value_and_gradients(stride_two_conv)
        wanted = value_and_gradients(convolution)
    for array, wanted_array in zip(given, wanted, strict=True):
        np.testing.assert_allclose(array, wanted_array, rtol=1e-11, atol=1e-11)


def test_second_derivatives_equal_those_of_a_convolution():
    images, kernel, bias = case((4, 5), 2)

    def slope_of(function):
        def loss(images, kernel):
            return jnp.sum(jnp.sin(function(images, kernel, jnp.asarray(bias))))

        def slope(images, kernel):
            gradients = jax.grad(loss, argnums=(0, 1))(images, kernel)
            return sum(jnp.sum(jnp.cos(g)) for g in gradients)

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(images, kernel)

    with jax.enable_x64(True):
        given, wanted = slope_of(stride_two_conv), slope_of(convolution)
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)
