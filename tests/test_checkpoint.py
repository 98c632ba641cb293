"""Checkpoints on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax import sharding
from segnext_jax.checkpoint import Checkpoints, abstract, load_model, save_model


def trees(step):
    model = {"params": {"a": jnp.full((4, 3), step, jnp.float32)}}
    return model, {"step": jnp.asarray(step, jnp.int32)}


def save(checkpoints, step):
    model, optimizer = trees(step)
    checkpoints.save(
        step, model=model, optimizer=optimizer, iterator={"next_batch": step}
    )


def expected():
    placement = sharding.replicated(sharding.make_mesh())
    model, optimizer = trees(0)
    return {
        "model": abstract(model, placement),
        "optimizer": abstract(optimizer, placement),
    }


def test_newest_is_restored_onto_the_mesh_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, num_kept=2)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.close()
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["20", "30"]
    checkpoints = Checkpoints(tmp_path)
    model, optimizer, iterator = checkpoints.restore(**expected())
    assert len(model["params"]["a"].sharding.device_set) == 8
    np.testing.assert_array_equal(model["params"]["a"], np.full((4, 3), 30.0))
    assert int(optimizer["step"]) == 30
    assert iterator == {"next_batch": 30}
    only_model = checkpoints.restore_model(expected()["model"])
    np.testing.assert_array_equal(only_model["params"]["a"], np.full((4, 3), 30.0))
    checkpoints.close()


def test_nothing_saved_is_one_sentence(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    with pytest.raises(
        ValueError, match="must hold a finished checkpoint.*Train first"
    ):
        checkpoints.restore(**expected())
    checkpoints.close()


def test_half_written_checkpoint_is_not_taken_for_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10)
    checkpoints.close()
    # What a killed run leaves: orbax writes under this name and renames at the end.
    partial = tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp"
    (partial / "model").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() == 10
    checkpoints.close()


def test_arrays_of_another_shape_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10)
    wrong = expected()
    placement = sharding.replicated(sharding.make_mesh())
    wrong["model"] = {
        "params": {"b": jax.ShapeDtypeStruct((5, 3), jnp.float32, sharding=placement)}
    }
    with pytest.raises(ValueError, match="checkpoint 10 in .* cannot be restored"):
        checkpoints.restore(**wrong)
    checkpoints.close()


def test_model_folder_round_trip(tmp_path):
    variables = {"params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    save_model(tmp_path / "model", variables, '{"seed": 3}')
    restored, text = load_model(tmp_path / "model")
    np.testing.assert_array_equal(restored["params"]["a"], variables["params"]["a"])
    assert text == '{"seed": 3}'
    with pytest.raises(ValueError, match="must be new"):
        save_model(tmp_path / "model", variables, "")
    with pytest.raises(ValueError, match="must be a model's folder"):
        load_model(tmp_path / "other")
