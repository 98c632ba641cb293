"""Batches over the mesh."""

import jax
import numpy as np
import pytest

from segnext_jax.ops import sharding


def test_mesh_holds_all_devices():
    assert sharding.make_mesh().size == jax.device_count() == 8


def test_batch_is_spread_over_its_first_dimension():
    mesh = sharding.make_mesh()
    images = np.arange(16 * 3).reshape(16, 3)
    array = sharding.shard_batch({"image": images}, mesh)["image"]
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(array, images)


@pytest.mark.parametrize(
    "batch_size, remedy", [(12, "8 or 16"), (5, "to 8"), (17, "16 or 24")]
)
def test_uneven_batch_is_refused_with_the_next_sizes(batch_size, remedy):
    with pytest.raises(ValueError, match=f"config.batch_size.*{remedy}"):
        sharding.check_batch_size(batch_size, sharding.make_mesh(), "batch_size")


def test_parts_of_a_batch_count_in_what_is_refused():
    mesh = sharding.make_mesh()
    sharding.check_batch_size(32, mesh, "batch_size", accumulate_steps=4)
    with pytest.raises(ValueError, match="24 images for 8 devices and 2 parts.*16 or"):
        sharding.check_batch_size(24, mesh, "batch_size", accumulate_steps=2)


def test_fsdp_must_divide_the_devices():
    assert sharding.make_mesh(fsdp=2).shape == {"data": 4, "fsdp": 2}
    with pytest.raises(ValueError, match="got 3 for 8 devices. Set it to 1 or 2 or 4"):
        sharding.make_mesh(fsdp=3)


def test_big_arrays_are_spread_along_their_longest_even_dimension():
    mesh = sharding.make_mesh(fsdp=4)
    shapes = {
        "matrix": (64, 128),
        "uneven": (64, 130),
        "kernel": (3, 3, 128, 64),
        "indivisible": (33, 111),
        "small": (100,),
        "step": (),
    }
    tree = {k: jax.ShapeDtypeStruct(v, "float32") for k, v in shapes.items()}
    spread = sharding.state_shardings(tree, mesh, min_size=1000)
    expected = {
        "matrix": (None, "fsdp"),
        "uneven": ("fsdp",),
        "kernel": (None, None, "fsdp"),
        "indivisible": (),
        "small": (),
        "step": (),
    }
    assert {k: tuple(v.spec) for k, v in spread.items()} == expected
    whole = sharding.state_shardings(tree, sharding.make_mesh(), min_size=0)
    assert {tuple(v.spec) for v in whole.values()} == {()}
    array = jax.device_put(np.zeros((64, 128)), spread["matrix"])
    assert {shard.data.shape for shard in array.addressable_shards} == {(64, 32)}


def test_batch_is_spread_over_both_axes():
    mesh = sharding.make_mesh(fsdp=2)
    images = np.arange(16 * 3).reshape(16, 3)
    array = sharding.shard_batch({"image": images}, mesh)["image"]
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(array, images)
