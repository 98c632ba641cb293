import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.multi_scale import multi_scale


def case(shape=(2, 9, 14, 3), lengths=(7, 11, 21)):
    generator = np.random.default_rng(0)
    sizes = {"conv0": (5, 5)} | {
        f"conv{index}_{half}": (1, length) if half == 1 else (length, 1)
        for index, length in enumerate(lengths)
        for half in (1, 2)
    }
    weights = {
        name: (
            generator.standard_normal((*size, shape[-1])) / np.prod(size) ** 0.5,
            generator.standard_normal(shape[-1]),
        )
        for name, size in sizes.items()
    }
    return generator.standard_normal(shape), weights


def correlate(images, kernel, bias):
    """NumPy's statement of a depthwise convolution."""
    (height, width), (rows, columns) = images.shape[1:3], kernel.shape[:2]
    pads = ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0))
    padded = np.pad(images, pads)
    taps = np.ndindex(rows, columns)
    return bias + sum(
        padded[:, i : i + height, j : j + width] * kernel[i, j] for i, j in taps
    )


@pytest.mark.parametrize("implementation", ["shifted", "grouped"])
def test_sum_of_a_square_and_three_strip_pairs(implementation):
    images, weights = case()
    local = correlate(images, *weights["conv0"])
    wanted = local + sum(
        correlate(correlate(local, *weights[f"conv{i}_1"]), *weights[f"conv{i}_2"])
        for i in range(3)
    )
    with jax.enable_x64(True):
        given = multi_scale(
            *jax.tree.map(jnp.asarray, (images, weights)), implementation=implementation
        )
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


def test_gradients_and_second_derivatives_equal_those_of_convolutions():
    # In float64 a row is 4 KiB: tall windows get a column more, from 9 rows on.
    arguments = case(shape=(1, 5, 256, 2), lengths=(3, 11))
    direction = jax.tree.map(np.cos, arguments)

    def derivatives(implementation):
        def loss(images, weights):
            output = multi_scale(images, weights, implementation=implementation)
            return jnp.sum(jnp.sin(output))

        def slope(*arguments):
            gradient = jax.grad(loss, argnums=(0, 1))(*arguments)
            products = jax.tree.map(jnp.vdot, gradient, direction)
            return sum(jax.tree.leaves(products)), gradient

        # Level 0: of one call each.
        options = {"xla_backend_optimization_level": 0}
        function = jax.jit(jax.grad(slope, argnums=(0, 1), has_aux=True))
        return function.lower(*arguments).compile(options)(*arguments)

    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, arguments)
        given, wanted = derivatives("shifted"), derivatives("grouped")
    for ours, theirs in zip(
        jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_shifted_sums_with_their_gradient_are_exported_for_accelerators(platform):
    images, weights = jax.tree.map(jnp.float32, case())

    def loss(images, weights):
        output = multi_scale(images, weights, implementation="shifted")
        return jnp.sum(jnp.square(output))

    exported = jax.export.export(
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), platforms=[platform]
    )(images, weights)
    assert exported.platforms == (platform,)
    # Nothing but what every compiler has: no convolution, no kernel of anyone's own.
    program = exported.mlir_module()
    assert "stablehlo.convolution" not in program
    assert "stablehlo.custom_call" not in program
