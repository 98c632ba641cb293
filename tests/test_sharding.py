"""Batches over the mesh."""

import jax
import numpy as np
import pytest

from segnext_jax import sharding


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
