import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.depthwise import depthwise_conv
from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.multi_scale_pallas import default_tile, multi_scale_fused
from segnext_jax.ops.pallas_program import Tile

# rows, columns, channels, rows_at_once, columns_at_once, num_warps
SMALL = Tile(4, 8, 2, 2, 2, 1)


def case(shape, lengths, square=(3, 5), dtype=np.float64):
    """Images and weights; a length's strips are 1 x it and it + 2 x 1."""
    generator = np.random.default_rng(0)
    sizes = {"conv0": square}
    for index, length in enumerate(lengths):
        sizes[f"conv{index}_1"] = (1, length)
        sizes[f"conv{index}_2"] = (length + 2, 1)
    weights = {
        name: (
            generator.standard_normal((*size, shape[-1])) / np.prod(size) ** 0.5,
            generator.standard_normal(shape[-1]),
        )
        for name, size in sizes.items()
    }
    arrays = generator.standard_normal(shape), weights
    return jax.tree.map(lambda array: jnp.asarray(array, dtype), arrays)


def grouped(images, weights):
    return multi_scale(images, weights, implementation="grouped")


def fused(tile):
    return functools.partial(multi_scale_fused, interpret=True, tile=tile)


@pytest.mark.parametrize(
    ("shape", "lengths", "square", "tile"),
    [
        # Two tiles of columns, three of rows, channels that do not fill their block.
        ((2, 9, 14, 3), (5,), (3, 5), SMALL),
        # One tile is wider and higher than the image, and than the kernels.
        ((1, 5, 6, 3), (9,), (5, 3), Tile(8, 8, 4, 1, 4, 1)),
        # Four tiles of columns, of which the second's neighbours' border is wider.
        ((1, 7, 7, 2), (1, 7), (3, 3), Tile(3, 2, 2, 1, 1, 1)),
        # No strips.
        ((1, 5, 6, 2), (), (5, 5), Tile(3, 4, 2, 2, 2, 1)),
    ],
)
def test_fused_equals_convolutions(shape, lengths, square, tile):
    with jax.enable_x64(True):
        arguments = case(shape, lengths, square)
        given = jax.jit(fused(tile))(*arguments)
        wanted = grouped(*arguments)
    np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


def test_published_kernels_with_the_default_tile():
    # Sums of 103 terms of size 1 in float32.
    images, weights = case((1, 6, 9, 3), (), (5, 5), np.float32)
    generator = np.random.default_rng(1)
    for index, length in enumerate((7, 11, 21)):
        for half, size in ((1, (1, length)), (2, (length, 1))):
            kernel = generator.standard_normal((*size, 3)) / length**0.5
            bias = generator.standard_normal(3)
            weights[f"conv{index}_{half}"] = (
                jnp.asarray(kernel, jnp.float32),
                jnp.asarray(bias, jnp.float32),
            )
    tile = default_tile(images.shape)._replace(rows_at_once=1)
    given = jax.jit(fused(tile))(images, weights)
    np.testing.assert_allclose(given, grouped(images, weights), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_rounded_once():
    images, weights = case((1, 5, 6, 2), (3,), dtype=jnp.bfloat16)
    given = jax.jit(fused(Tile(4, 8, 2, 1, 1, 1)))(images, weights)
    assert given.dtype == jnp.bfloat16
    exact = grouped(*jax.tree.map(lambda a: a.astype(jnp.float32), (images, weights)))
    # Half a unit in the last of 8 bits.
    np.testing.assert_allclose(
        np.asarray(given, np.float32), exact, rtol=2**-8, atol=1e-5
    )


def test_gradients_equal_those_of_convolutions():
    @functools.partial(jax.jit, static_argnums=0)
    def pull(function, cotangent, *arguments):
        return jax.vjp(function, *arguments)[1](cotangent)

    with jax.enable_x64(True):
        arguments = case((2, 7, 11, 3), (1, 3), (1, 3))
        cotangent = jnp.cos(case((2, 7, 11, 3), (), (1, 1))[0])
        given = pull(fused(SMALL), cotangent, *arguments)
        wanted = pull(grouped, cotangent, *arguments)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
        *(given, wanted),
    )


def test_gradients_have_the_types_of_what_they_are_by():
    images, weights = case((1, 4, 5, 2), (1,), (1, 1), np.float32)
    images = images.astype(jnp.bfloat16)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(function, images, weights):
        def loss(images, weights):
            return jnp.sum(function(images, weights).astype(jnp.float32) ** 2)

        return jax.grad(loss, argnums=(0, 1))(images, weights)

    given = gradient(fused(Tile(4, 8, 2, 1, 1, 1)), images, weights)
    wanted = gradient(grouped, images.astype(jnp.float32), weights)
    for ours, theirs, argument in zip(
        *map(jax.tree.leaves, (given, wanted, (images, weights))), strict=True
    ):
        assert ours.dtype == argument.dtype
        # Output, its cotangent and d are rounded to 8 bits; sums of 20 pixels.
        scale = np.max(np.abs(theirs))
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), theirs, rtol=0, atol=2**-6 * scale
        )


def test_second_derivatives_equal_those_of_convolutions():
    with jax.enable_x64(True):
        arguments = case((1, 3, 4, 2), (1,), (1, 1))
        direction = jax.tree.map(np.cos, arguments)

        @functools.partial(jax.jit, static_argnums=0)
        def derivatives(function, *arguments):
            def slope(*arguments):
                def loss(*arguments):
                    return jnp.sum(jnp.sin(function(*arguments)))

                gradient = jax.grad(loss, argnums=(0, 1))(*arguments)
                products = jax.tree.map(jnp.vdot, gradient, direction)
                return sum(jax.tree.leaves(products))

            return jax.grad(slope, argnums=(0, 1))(*arguments)

        given = derivatives(fused(Tile(4, 4, 2, 1, 1, 1)), *arguments)
        wanted = derivatives(grouped, *arguments)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11),
        *(given, wanted),
    )


def lowered(function, *arguments):
    """Names and results of the Triton kernels that CUDA gets."""
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "convolution" not in text
    calls = re.findall(r"custom_call @__gpu\$xla\.gpu\.triton.*", text)
    names = [re.search(r'name = "(\w+)"', call)[1] for call in calls]
    return names, [re.findall(r"tensor<[^>]*>", call.split("->")[-1]) for call in calls]


def test_one_kernel_computes_the_result_and_few_others_the_gradient():
    images, weights = case((1, 33, 9, 8), (1, 3), (1, 3), jnp.bfloat16)
    tile = Tile(33, 16, 8, 2, 4, 1)
    function = functools.partial(multi_scale_fused, tile=tile)
    names, (results,) = lowered(function, images, weights)
    assert names == ["multi_scale"]
    # The image, and two times two rows of one program: 16 columns and 4 to each side.
    assert results == [f"tensor<{33 * 9 * 8}xbf16>", f"tensor<{2 * 2 * 24 * 8}xf32>"]

    names, _ = lowered(
        lambda c, *arguments: jax.vjp(function, *arguments)[1](c),
        *(images, images, weights),
    )
    assert sorted(names) == [
        *("multi_scale", "multi_scale_square", "multi_scale_square"),
        *("pair_gradients", "pair_gradients", "square_gradient"),
    ]


@pytest.mark.parametrize("width", [16, 128])
def test_default_tile_fits_the_stages(width):
    tile = default_tile((16, width, width, 64))
    assert tile.columns * tile.channels == 4 * 32 * tile.num_warps
    assert tile.columns == min(width, 64)


def test_other_platforms_are_an_error_that_says_what_to_do():
    images, weights = case((1, 3, 4, 2), (), (1, 1), np.float32)
    with pytest.raises(ValueError, match='config.model.depthwise to "shifted"'):
        jax.jit(lambda *a: multi_scale(*a, implementation="pallas"))(images, weights)


def test_single_convolutions_are_shifted():
    images, weights = case((1, 3, 4, 2), (), (3, 3), np.float32)
    np.testing.assert_array_equal(
        depthwise_conv(images, *weights["conv0"], implementation="pallas"),
        depthwise_conv(images, *weights["conv0"], implementation="shifted"),
    )


def test_wrong_tiles_and_kernels_are_errors():
    images, weights = case((1, 3, 4, 2), (3,), dtype=np.float32)
    for wrong in ({"channels": 3}, {"columns": 6}, {"columns": 9}, {"rows": 0}):
        with pytest.raises(ValueError, match="a tile's sizes must be"):
            multi_scale_fused(images, weights, tile=SMALL._replace(**wrong))
    kernel, bias = weights["conv0_1"]
    for wrong in (kernel[:, :2], kernel.transpose(1, 0, 2)):
        with pytest.raises(ValueError, match="must have odd sizes, 1xk for"):
            multi_scale_fused(images, weights | {"conv0_1": (wrong, bias)})
