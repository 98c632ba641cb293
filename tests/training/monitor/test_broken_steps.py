import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.checkpoints.arrays import abstract
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.ops import sharding
from segnext_jax.training.monitor.broken_steps import (
    LIST_FILE,
    STATE_FOLDER,
    BrokenSteps,
)
from segnext_jax.training.state import TrainState

STATE = TrainState(
    step=jnp.asarray(9, jnp.int32),
    params={"a": jnp.arange(6.0).reshape(2, 3)},
    batch_stats={"b": jnp.ones(3)},
    optimizer_state={"mu": jnp.zeros(2)},
)
BROKEN = {7: {"loss": np.nan, "gradient_norm": np.inf}}


def image_ids(number):
    return [f"image_{2 * number}", f"image_{2 * number + 1}"]


def test_allowed_ones_are_written_down_with_their_images(tmp_path):
    steps = BrokenSteps(tmp_path, num_allowed=2)
    steps.add({}, 5, STATE, image_ids)
    assert not (tmp_path / LIST_FILE).exists()
    steps.add(BROKEN, 9, STATE, image_ids)
    steps.add({12: {"loss": 1.5, "gradient_norm": np.nan}}, 15, STATE, image_ids)
    lines = [json.loads(s) for s in (tmp_path / LIST_FILE).read_text().splitlines()]
    assert lines == [
        # Step 7 takes batch 6.
        {
            "step": 7,
            "loss": "nan",
            "gradient_norm": "inf",
            "image_ids": ["image_12", "image_13"],
        },
        {
            "step": 12,
            "loss": "1.5",
            "gradient_norm": "nan",
            "image_ids": ["image_22", "image_23"],
        },
    ]
    assert not (tmp_path / STATE_FOLDER).exists()


def test_one_too_many_ends_the_run_and_leaves_the_state(tmp_path):
    steps = BrokenSteps(tmp_path, num_allowed=0)
    with pytest.raises(FloatingPointError, match=r"not at step 7, and .* allows 0\."):
        steps.add(BROKEN, 9, STATE, image_ids)
    placement = sharding.replicated(sharding.make_mesh())
    model, rest = jax.tree.map(np.asarray, STATE.to_checkpoint())
    checkpoints = Checkpoints(tmp_path / STATE_FOLDER)
    restored_model, restored_rest, iterator = checkpoints.restore(
        model=abstract(model, placement), optimizer=abstract(rest, placement)
    )
    checkpoints.close()
    assert int(restored_rest["step"]) == 9 and iterator == {"next_batch": 6}
    np.testing.assert_array_equal(restored_model["params"]["a"], model["params"]["a"])


def test_a_run_counts_over_its_starts_and_forgets_what_is_done_again(tmp_path):
    steps = BrokenSteps(tmp_path, num_allowed=2)
    steps.add(BROKEN, 9, STATE, image_ids)
    with (tmp_path / LIST_FILE).open("ab") as file:
        file.write(b'{"step": 8, \xff')  # The machine lost its power here.
    # From the checkpoint of step 6 on, step 7 is done again.
    again = BrokenSteps(tmp_path, num_allowed=1, first_step=6)
    assert (tmp_path / LIST_FILE).read_text() == ""
    again.add(BROKEN, 9, STATE, image_ids)
    # From that of step 10 on it is not.
    later = BrokenSteps(tmp_path, num_allowed=1, first_step=10)
    with pytest.raises(FloatingPointError, match="not at step 12, .* allows 1"):
        later.add({12: {"loss": np.nan}}, 15, STATE, image_ids)


def test_several_at_once_count_each(tmp_path):
    steps = BrokenSteps(tmp_path, num_allowed=1)
    both = {**BROKEN, 8: {"loss": np.nan, "gradient_norm": 0.0}}
    with pytest.raises(FloatingPointError, match="step 7 and 1 later ones"):
        steps.add(both, 9, STATE, image_ids)
