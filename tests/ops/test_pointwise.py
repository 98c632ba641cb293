import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.pointwise import pointwise, scale_channels


def case(dtype=np.float64):
    generator = np.random.default_rng(0)
    shapes = (2, 3, 5, 4), (4, 7), (7,)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def test_values_and_gradients_equal_those_of_a_product():
    arguments = case()
    cotangent = np.cos(np.arange(2 * 3 * 5 * 7.0)).reshape(2, 3, 5, 7)
    images, kernel, bias = arguments

    @jax.jit
    def both(cotangent, *arguments):
        output, pull = jax.vjp(pointwise, *arguments)
        return output, pull(cotangent)

    with jax.enable_x64(True):
        output, gradients = both(cotangent, *arguments)
    wanted = np.einsum("bhwc,cf->bhwf", images, kernel) + bias
    wanted_gradients = (
        np.einsum("bhwf,cf->bhwc", cotangent, kernel),
        np.einsum("bhwc,bhwf->cf", images, cotangent),
        cotangent.sum(axis=(0, 1, 2)),
    )
    np.testing.assert_allclose(output, wanted, rtol=1e-12, atol=1e-12)
    for given, expected in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-12, atol=1e-12)


def test_second_derivatives_equal_those_of_a_product():
    images, kernel, bias = case()

    def slope_of(function):
        def loss(images, kernel):
            return jnp.sum(jnp.sin(function(images, kernel, jnp.asarray(bias))))

        def slope(images, kernel):
            gradients = jax.grad(loss, argnums=(0, 1))(images, kernel)
            return sum(jnp.sum(jnp.cos(g)) for g in gradients)

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(images, kernel)

    def plain(images, kernel, bias):
        return jnp.einsum("bhwc,cf->bhwf", images, kernel) + bias[None, None, None]

    with jax.enable_x64(True):
        given, wanted = slope_of(pointwise), slope_of(plain)
    for ours, theirs in zip(given, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_types_stay_and_gradients_have_the_types_of_the_parameters(dtype):
    images, kernel, bias = case(np.float32)
    images = images.astype(dtype)

    def loss(kernel, bias):
        output = pointwise(jnp.asarray(images), kernel, bias)
        assert output.dtype == dtype
        return jnp.sum(output.astype(jnp.float32))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(kernel, bias)
    assert [g.dtype for g in gradients] == [jnp.float32] * 2
    # Each kernel entry is met by the sum of a channel over 30 pixels.
    wanted = np.float32(images).sum(axis=(0, 1, 2))
    wanted = np.broadcast_to(wanted[:, None], kernel.shape)
    np.testing.assert_allclose(gradients[0], wanted, rtol=2**-7, atol=1e-3)


def test_a_bias_is_not_needed():
    images, kernel, bias = (jnp.asarray(a, jnp.float32) for a in case())
    with_bias = pointwise(images, kernel, bias)
    np.testing.assert_allclose(
        pointwise(images, kernel), with_bias - bias[None, None, None], atol=1e-6
    )


def test_gradients_of_parameters_are_summed_in_float32():
    # 1,501 ones: bfloat16 has 1,496 and 1,504.
    images = jnp.ones((1, 1, 1501, 1), jnp.bfloat16)
    parameters = tuple(np.ones(n, np.float32) for n in ((1, 1), 1, 1))

    def total(parameters):
        kernel, bias, factors = parameters
        return jnp.sum(scale_channels(pointwise(images, kernel, bias), factors))

    gradients = jax.jit(jax.grad(lambda each: total(each).astype(float)))(parameters)
    for gradient, expected in zip(gradients, (1501, 1501, 3002), strict=True):
        assert gradient.dtype == jnp.float32
        np.testing.assert_array_equal(gradient.reshape(-1), [expected])
