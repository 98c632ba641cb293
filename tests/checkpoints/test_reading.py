"""Reading weights: which checkpoint, and is it whole."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder, reading
from segnext_jax.checkpoints.checkpoints import Checkpoints

STEPS = {10: 0.25, 20: 0.75, 30: 0.5}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run with three checkpoints, of which the second is the best."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    checkpoints = Checkpoints(workdir, num_kept=3)
    config = config_lib.base_config()
    config.seed = 5
    text = config_lib.to_json(config)
    for step, score in STEPS.items():
        checkpoints.save(
            step,
            model={"params": {"a": jnp.full((4, 3), step, jnp.float32)}},
            optimizer={"step": jnp.asarray(step)},
            iterator={"next_batch": step},
            about={"config": json.loads(text)},
        )
        checkpoints.record_score(step, score)
    checkpoints.close()
    (workdir / "config.json").write_text(text)
    return workdir


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def value(stored) -> float:
    (found,) = np.unique(stored.variables["params"]["a"])
    assert stored.config is not None and stored.config.seed == 5
    return float(found)


@pytest.mark.parametrize(
    ("which", "step"),
    [("latest", 30), ("best", 20), (10, 10), ("10", 10)],
)
def test_the_checkpoint_that_is_asked_for_is_read(run, which, step):
    files = sorted(run.rglob("*"))
    stored = reading.read(run, which)
    assert (stored.step, value(stored), stored.score) == (step, step, STEPS[step])
    assert str(stored) == f"{run}, step {step}, mIoU {100 * STEPS[step]:.2f}"
    assert stored.is_newest == (step == 30)
    assert sorted(run.rglob("*")) == files, "reading changes nothing"


def test_a_path_to_checkpoints_or_to_one_of_them_is_the_runs(run):
    assert value(reading.read(run / "checkpoints", "best")) == 20
    assert value(reading.read(run / "checkpoints" / "10")) == 10
    assert value(reading.read(run / "checkpoints" / "10", 10)) == 10
    with pytest.raises(ValueError, match="is one checkpoint, of step 10: got best"):
        reading.read(run / "checkpoints" / "10", "best")
    # A copy of one alone knows its configuration, but no score.
    shutil.copytree(run / "checkpoints" / "20", run.parent / "20")
    alone = reading.read(run.parent / "20")
    assert (alone.step, value(alone), alone.score) == (20, 20, None)
    assert str(alone).endswith("step 20, not evaluated")


@pytest.mark.parametrize("which", ["bset", "", "-1", "1.5", "latest ", True])
def test_a_choice_that_is_none_is_one_sentence(run, which):
    with pytest.raises(ValueError, match="must be latest, best or the number of a"):
        reading.read(run, which)


def test_a_step_that_is_not_there_lists_those_that_are(run):
    with pytest.raises(ValueError, match="no checkpoint of step 15.* of 10, 20, 30"):
        reading.read(run, 15)


def test_without_scores_none_is_the_best_and_the_latest_is_read(run, caplog):
    (run / "scores.json").write_text('{"10": 0.')
    with pytest.raises(ValueError, match="scores.json must hold the scores.*Delete"):
        reading.read(run, "best")
    assert value(reading.read(run)) == 30
    assert "scores.json must hold the scores" in caplog.text
    (run / "scores.json").unlink()
    with pytest.raises(ValueError, match="none is the best. Take the latest one"):
        reading.read(run, "best")


def damage(path, number: int) -> None:
    """Cut a file in half, or flip one bit of it."""
    content = bytearray(path.read_bytes())
    if number % 2 and content:
        content[len(content) // 2] ^= 1 << number % 8
    else:
        content = content[: len(content) // 2]
    path.write_bytes(bytes(content))


def test_damage_of_any_file_is_passed_over_or_refused(original, tmp_path, caplog):
    names = [
        path.relative_to(original)
        for path in sorted((original / "checkpoints" / "30").rglob("*"))
        if path.is_file()
        and path.stat().st_size
        # The time of the commit: nothing is read from them.
        and path.name not in ("_CHECKPOINT_METADATA", "commit_success.txt")
    ]
    assert len(names) > 10
    for number, name in enumerate(names):
        run = shutil.copytree(original, tmp_path / str(number))
        damage(run / name, number)
        caplog.clear()
        stored = reading.read(run)
        assert (stored.step, value(stored), stored.is_newest) == (20, 20, False), name
        assert "Checkpoint 30 is damaged (" in caplog.text
        assert "passed over for that of step 20" in caplog.text
        with pytest.raises(ValueError, match="^checkpoint 30 in .* is damaged"):
            reading.read(run, 30)
        with pytest.raises(ValueError, match="^checkpoint 30 in .* is damaged"):
            reading.read(run / "checkpoints" / "30")


def test_a_checkpoint_that_a_training_deletes_meanwhile_is_not_called_damaged(
    run, caplog
):
    listed = {40: run / "checkpoints" / "40", **reading.checkpoint_folders(run)}
    assert reading._of_run(run, listed, "latest").step == 30
    assert "damaged" not in caplog.text
    with pytest.raises(ValueError, match="no checkpoint of step 40: it keeps .* 20"):
        reading._of_run(run, listed, 40)


def test_the_best_is_not_replaced_by_another(run):
    (run / "checkpoints" / "20" / "model" / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match="checkpoint 20 .*model/_METADATA is not what"):
        reading.read(run, "best")


def test_a_checkpoint_that_was_never_sealed_is_passed_over_if_it_is_cut(run):
    newest = run / "checkpoints" / "30"
    (newest / "checksums.json").unlink()
    assert reading.read(run).step == 30
    (newest / "model" / "manifest.ocdbt").write_bytes(b"")
    assert reading.read(run).step == 20
    with pytest.raises(ValueError, match="checkpoint 30 .*cannot be decoded"):
        reading.read(run, 30)


def test_where_all_are_damaged_the_newest_is_named(run):
    for step in STEPS:
        damage(run / "checkpoints" / str(step) / "model" / "_METADATA", 0)
    with pytest.raises(ValueError, match="checkpoint 30 .*every checkpoint is, the n"):
        reading.read(run)


def test_folders_of_something_else_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="must be a run's workdir, one of its check"):
        reading.read(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="must hold a finished checkpoint: none was"):
        reading.read(tmp_path)


@pytest.fixture
def model(tmp_path):
    config = config_lib.base_config()
    config.seed = 5
    path = tmp_path / "model"
    variables = {"params": {"a": np.full((2, 3), 7, np.float32)}}
    model_folder.save_model(path, variables, config_lib.to_json(config))
    return path


def test_model_folder_round_trip(model):
    stored = reading.read(model)
    assert (value(stored), stored.step, str(stored)) == (7, None, str(model))
    with pytest.raises(ValueError, match="holds one model, not .* got best"):
        reading.read(model, "best")
    with pytest.raises(ValueError, match="must be new"):
        model_folder.save_model(model, {}, "")


def test_damage_of_any_file_of_a_model_folder_is_refused(model, tmp_path):
    names = [
        path.relative_to(model)
        for path in sorted(model.rglob("*"))
        if path.is_file() and path.stat().st_size
    ]
    for number, name in enumerate(names):
        copy = shutil.copytree(model, tmp_path / str(number))
        damage(copy / name, number)
        with pytest.raises(
            ValueError, match="^the model in .* is damaged: .*onvert it"
        ):
            reading.read(copy)
    # Without checksums, as earlier versions wrote them, it is read.
    (model / "checksums.json").unlink()
    assert value(reading.read(model)) == 7
