import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import multi_scale_fused, sharding
from segnext_jax.ops.kernels.plane_program import Planes
from segnext_jax.ops.kernels.targets import Target
from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.multi_scale_composed import multi_scale_composed

TARGETS = [Target(is_tpu, interpret=True) for is_tpu in (False, True)]


@functools.partial(jax.jit, static_argnames="target")
def fused(images, weights, cotangent, target):
    """Result and d, and the gradients."""
    result, local = multi_scale_fused.values(images, weights, target=target)
    arguments = images, local, weights, cotangent
    gradients = multi_scale_fused.gradients(*arguments, target=target)
    return result, local, gradients


@jax.jit
def composed(images, weights, cotangent):
    """Result and gradients of convolutions."""
    convolve = functools.partial(multi_scale_composed, implementation="grouped")
    result, pull = jax.vjp(convolve, images, weights)
    return result, pull(cotangent)


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
    return jax.tree.map(lambda array: array.astype(dtype), arrays)


@pytest.mark.parametrize("target", TARGETS, ids=["gpu", "tpu"])
@pytest.mark.parametrize(
    ("shape", "lengths", "square"),
    [
        # Several programs of columns, channels that do not fill their block. On a TPU
        # columns are along the lanes.
        ((2, 9, 70, 3), (3,), (3, 5)),
        # Rows split over programs; strips longer than the image is wide.
        ((1, 70, 2, 8), (1, 3), (3, 1)),
        # The images are smaller than the kernels.
        ((1, 2, 2, 24), (5,), (3, 3)),
        # No strips.
        ((1, 5, 6, 2), (), (3, 3)),
    ],
)
def test_values_and_gradients_equal_those_of_convolutions(
    shape, lengths, square, target
):
    images, weights = case(shape, lengths, square)
    arguments = images, weights, np.cos(images)
    with jax.enable_x64(True):
        given, _, gradients = fused(*arguments, target)
        wanted, wanted_gradients = composed(*arguments)
    check = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
    check(given, wanted)
    jax.tree.map(check, gradients, wanted_gradients)


@pytest.mark.parametrize("target", TARGETS, ids=["gpu", "tpu"])
def test_bfloat16_keeps_sums_in_float32_and_gradients_the_types_of_the_weights(target):
    images, weights = case((1, 5, 6, 2), (3,), (3, 3), np.float32)
    images = images.astype(jnp.bfloat16)
    given, local, gradients = fused(images, weights, images, target)
    exact = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16).astype(np.float32), (images, weights, images)
    )
    wanted, by_arguments = composed(*exact)
    assert given.dtype == local.dtype == jnp.bfloat16
    # d and the result are rounded to 8 bits; the sums of size 3 between are not.
    np.testing.assert_allclose(np.float32(given), wanted, rtol=2**-8, atol=0.02)
    assert gradients[0].dtype == jnp.bfloat16
    for ours, theirs in zip(
        *map(jax.tree.leaves, (gradients, by_arguments)), strict=True
    ):
        scale = np.max(np.abs(theirs))
        np.testing.assert_allclose(np.float32(ours), theirs, rtol=0, atol=0.02 * scale)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients[1]))


def test_published_kernels():
    images, weights = case((1, 23, 9, 8), (), (5, 5), np.float32)
    generator = np.random.default_rng(1)
    for index, length in enumerate((7, 11, 21)):
        for half, size in ((1, (1, length)), (2, (length, 1))):
            kernel = generator.standard_normal((*size, 8)) / length**0.5
            weights[f"conv{index}_{half}"] = jax.tree.map(
                np.float32, (kernel, generator.standard_normal(8))
            )
    values = functools.partial(multi_scale_fused.values, target=TARGETS[0])
    given, _ = jax.jit(values)(images, weights)
    # Sums of 103 terms of size 1 in float32.
    wanted, _ = composed(images, weights, images)
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


KERNELS = {"cuda": "@__gpu$xla.gpu.triton", "tpu": "@tpu_custom_call"}


def num_kernels(platform, function, *arguments):
    """How many kernels of our own a platform gets."""
    traced = jax.jit(function).trace(*arguments)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "convolution" not in text
    return text.count(f"custom_call {KERNELS[platform]}")


@pytest.mark.parametrize("platform", KERNELS)
def test_two_kernels_compute_the_result_and_three_the_gradient(platform):
    images, weights = case((1, 33, 9, 8), (1, 3), (1, 3), jnp.bfloat16)

    def pull(images, weights, cotangent):
        return jax.vjp(multi_scale, images, weights)[1](cotangent)

    assert num_kernels(platform, multi_scale, images, weights) == 2
    assert num_kernels(platform, pull, images, weights, images) == 2 + 3
    text = jax.jit(pull).lower(images, weights, images).as_text()
    assert not any(name in text for name in KERNELS.values())


@pytest.mark.parametrize(
    ("platform", "call"), [("cuda", "@CustomSPMDPartitioning"), ("tpu", KERNELS["tpu"])]
)
@pytest.mark.parametrize(("num_devices", "is_there"), [(1, False), (8, True)])
def test_a_batch_of_more_than_32_bits_has_kernels_where_each_part_has_fewer(
    platform, call, num_devices, is_there
):
    mesh = sharding.make_mesh(devices=jax.devices()[:num_devices])
    _, weights = case((1, 1, 1, 256), (1, 3), (1, 3), jnp.bfloat16)
    spread = sharding.batch_sharding(mesh)
    images = jax.ShapeDtypeStruct((128, 256, 256, 256), jnp.bfloat16, sharding=spread)
    whole = sharding.replicated(mesh)
    given = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), weights
    )
    traced = jax.jit(multi_scale).trace(images, given)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert (call in text) == is_there


def test_planes_that_a_tpu_has_no_room_for_have_the_shifted_form():
    shape = jax.ShapeDtypeStruct
    _, weights = case((1, 1, 1, 256), (1, 3), (1, 3), jnp.bfloat16)
    for side, is_there in ((256, True), (1024, False)):
        images = shape((1, side, side, 256), jnp.bfloat16)
        assert Planes(images.shape, 2).fits == is_there
        assert (num_kernels("tpu", multi_scale, images, weights) == 2) == is_there


def test_other_platforms_have_the_shifted_form_and_second_derivatives():
    images, weights = case((2, 5, 7, 3), (1,), (1, 3), np.float32)
    direction = jax.tree.map(np.cos, (images, weights))

    def derivatives(implementation):
        def loss(images, weights):
            output = multi_scale(images, weights, implementation=implementation)
            return jnp.sum(jnp.sin(output))

        def slope(*arguments):
            value, gradient = jax.value_and_grad(loss, argnums=(0, 1))(*arguments)
            products = jax.tree.map(jnp.vdot, gradient, direction)
            return sum(jax.tree.leaves(products)), (value, gradient)

        function = jax.grad(slope, argnums=(0, 1), has_aux=True)
        return jax.jit(function)(images, weights)

    given, wanted = derivatives("auto"), derivatives("shifted")
    jax.tree.map(np.testing.assert_array_equal, given[1], wanted[1])
    # Sums of 100 terms of size 1 in another order.
    check = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(check, given[0], wanted[0])


def test_values_of_64_bits_have_no_kernels():
    with jax.enable_x64(True):
        for platform in KERNELS:
            assert num_kernels(platform, multi_scale, *case((1, 5, 6, 2), (1,))) == 0


def test_wrong_kernels_are_errors():
    images, weights = jax.tree.map(jnp.float32, case((1, 3, 4, 2), (3,)))
    kernel, bias = weights["conv0_1"]
    for wrong in (kernel[:, :2], kernel.transpose(1, 0, 2)):
        with pytest.raises(ValueError, match="must have odd sizes, 1xk for"):
            multi_scale(images, weights | {"conv0_1": (wrong, bias)})
