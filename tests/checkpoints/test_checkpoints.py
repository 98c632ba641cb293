"""Checkpoints on disk."""

import json
import math
import shutil
import signal
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import reading
from segnext_jax.checkpoints.arrays import abstract
from segnext_jax.checkpoints.checkpoints import CheckpointError, Checkpoints
from segnext_jax.ops import sharding


def trees(step):
    model = {"params": {"a": jnp.full((4, 3), step, jnp.float32)}}
    return model, {"step": jnp.asarray(step, jnp.int32)}


def save(checkpoints, step):
    model, optimizer = trees(step)
    checkpoints.save(
        step, model=model, optimizer=optimizer, iterator={"next_batch": step}
    )


def read(workdir, which="latest"):
    config = config_lib.to_json(config_lib.base_config())
    (workdir / "config.json").write_text(config)
    return reading.read(workdir, which)


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
    checkpoints.close()
    only_model = read(tmp_path)
    assert only_model.step == 30
    np.testing.assert_array_equal(only_model.variables["params"]["a"], 30.0)


def test_a_state_on_all_devices_is_saved_without_compiling(tmp_path, caplog):
    """As many programs as shapes and devices would hold up the first checkpoint."""
    placement = sharding.replicated(sharding.make_mesh())
    model = {f"w{i}": np.full((8, 16 + i), i, np.float32) for i in range(5)}
    checkpoints = Checkpoints(tmp_path)
    model = jax.device_put({"params": model}, placement)
    optimizer = jax.device_put({"step": np.int32(1)}, placement)
    with jax.log_compiles():
        checkpoints.save(1, model=model, optimizer=optimizer, iterator={})
        checkpoints.wait()
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(model["params"]["w0"])
        assert "Compiling" in caplog.text
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path).variables, model)


def test_a_checkpoint_of_orbax_own_writer_is_restored(tmp_path):
    """As earlier versions wrote them, each device a part of each array."""
    placement = sharding.replicated(sharding.make_mesh())
    values = np.arange(128, dtype=np.float32).reshape(8, 16)
    model = jax.device_put({"params": {"a": values}}, placement)
    optimizer = jax.device_put({"step": np.int32(7)}, placement)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(
            7,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                optimizer=ocp.args.StandardSave(optimizer),
                iterator=ocp.args.JsonSave({"next_batch": 7}),
                about=ocp.args.JsonSave({}),
            ),
        )
    checkpoints = Checkpoints(tmp_path)
    restored, state, iterator = checkpoints.restore(
        model=abstract(model, placement), optimizer=abstract(optimizer, placement)
    )
    checkpoints.close()
    np.testing.assert_array_equal(restored["params"]["a"], values)
    assert int(state["step"]) == 7
    assert iterator == {"next_batch": 7}


def three_checkpoints(workdir):
    checkpoints = Checkpoints(workdir, num_kept=3)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.close()
    return [workdir / "checkpoints" / str(step) for step in (10, 20, 30)]


def test_every_file_of_a_checkpoint_is_sealed(tmp_path):
    for folder in three_checkpoints(tmp_path):
        sealed = json.loads((folder / "checksums.json").read_text())
        present = [path for path in folder.rglob("*") if path.is_file()]
        # What orbax writes when it renames the folder says nothing that is read.
        late = {"_CHECKPOINT_METADATA", "commit_success.txt", "checksums.json"}
        names = {path.relative_to(folder).as_posix() for path in present}
        assert sealed.keys() == names - late and len(sealed) > 10
        for name, (size, checksum) in sealed.items():
            content = (folder / name).read_bytes()
            assert (len(content), zlib.crc32(content)) == (size, checksum)


KILLED = """
import os, signal, sys, threading
import jax.numpy as jnp
from segnext_jax.checkpoints.checkpoints import Checkpoints

checkpoints = Checkpoints(sys.argv[1], num_kept=3)
newest = checkpoints._folder / "30"
def kill():
    while not newest.is_dir():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
killer = threading.Thread(target=kill)
killer.start()
for step in (10, 20, 30):
    model = {"params": {"a": jnp.full((4, 3), step, jnp.float32)}}
    state = {"step": jnp.asarray(step, jnp.int32)}
    checkpoints.save(step, model=model, optimizer=state, iterator={"next_batch": step})
checkpoints.wait()
killer.join()  # It may get no time before.
"""


def test_a_flipped_bit_after_a_kill_at_the_commit_is_found(tmp_path, caplog):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    newest = tmp_path / "checkpoints" / "30"
    (file,) = newest.glob("optimizer/d/*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    checkpoints = Checkpoints(tmp_path, num_kept=3)
    _, optimizer, iterator = checkpoints.restore(**expected())
    checkpoints.close()
    assert int(optimizer["step"]) == iterator["next_batch"] == 20
    assert "Checkpoint 30 is damaged" in caplog.text


def test_a_checkpoint_without_the_time_of_its_commit_is_whole(tmp_path):
    *_, newest = three_checkpoints(tmp_path)
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        (newest / name).write_bytes(b"")
    checkpoints = Checkpoints(tmp_path, num_kept=3)
    assert checkpoints.restore(**expected())[2] == {"next_batch": 30}
    checkpoints.close()


def test_a_checkpoint_of_an_earlier_version_is_not_sealed_later(tmp_path):
    """It may be damaged by now: that would pass for what was written."""
    *_, newest = three_checkpoints(tmp_path)
    (newest / "checksums.json").unlink()
    checkpoints = Checkpoints(tmp_path, num_kept=4)
    save(checkpoints, 40)
    checkpoints.close()
    assert not (newest / "checksums.json").exists()


def test_a_checkpoint_with_any_damaged_file_is_passed_over(tmp_path, caplog):
    *_, newest = three_checkpoints(tmp_path / "run")
    names = sorted(json.loads((newest / "checksums.json").read_text()))
    for number, name in enumerate([*names, "checksums.json"]):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "run", workdir)
        damaged = workdir / "checkpoints" / "30" / name
        content = bytearray(damaged.read_bytes())
        if number % 2 and content:
            content[len(content) // 2] ^= 0x10
        else:
            content = content[: len(content) // 2]
        damaged.write_bytes(bytes(content))
        caplog.clear()
        checkpoints = Checkpoints(workdir, num_kept=3)
        _, optimizer, iterator = checkpoints.restore(**expected())
        assert int(optimizer["step"]) == iterator["next_batch"] == 20, name
        assert "Checkpoint 30 is damaged" in caplog.text
        assert "passed over for that of step 20" in caplog.text
        # Nothing is lost, and the run may come to step 30 again.
        assert (workdir / "damaged" / "30" / name).is_file()
        assert checkpoints.latest_step() == 20
        save(checkpoints, 30)
        checkpoints.close()
        assert Checkpoints(workdir).latest_step() == 30


def test_where_all_are_damaged_the_newest_is_named(tmp_path):
    for folder in three_checkpoints(tmp_path):
        (folder / "iterator" / "metadata").write_text("{")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(
        ValueError, match="^checkpoint 30 .* cannot be restored: iterator/metadata is"
    ):
        checkpoints.restore(**expected())
    checkpoints.close()
    assert not (tmp_path / "damaged").exists()


def test_the_best_checkpoints_are_kept_beside_the_latest(tmp_path):
    checkpoints = Checkpoints(tmp_path, num_kept=1, num_best=2)
    scores = {10: 0.4, 20: 0.7, 30: math.nan, 40: 0.6, 50: 0.7, 60: 0.1, 70: 0.2}
    for step, score in scores.items():
        save(checkpoints, step)
        checkpoints.record_score(step, score)
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [20, 50, 70]
    # Of equal ones the later.
    best = read(tmp_path, "best")
    assert (best.step, best.score) == (50, 0.7)
    np.testing.assert_array_equal(best.variables["params"]["a"], 50.0)
    checkpoints = Checkpoints(tmp_path, num_kept=1, num_best=1)
    assert checkpoints.has_score(50) and not checkpoints.has_score(80)
    save(checkpoints, 80)
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [50, 80]


def test_a_checkpoint_that_its_evaluation_beats_goes(tmp_path):
    """Orbax decides what is kept before the last one is evaluated."""
    checkpoints = Checkpoints(tmp_path, num_kept=1, num_best=1)
    for step, score in {10: 0.4, 20: 0.5, 30: 0.6}.items():
        save(checkpoints, step)
        checkpoints.record_score(step, score)
    checkpoints.wait()
    assert kept_by(tmp_path) == [30]
    # Opened to look, it deletes nothing.
    save(checkpoints, 40)
    checkpoints.close()
    Checkpoints(tmp_path, num_kept=1).close()
    assert kept_by(tmp_path) == [30, 40]


def kept_by(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


DISK_FULL = """
import resource, sys
import jax.numpy as jnp
from segnext_jax.checkpoints.checkpoints import CheckpointError, Checkpoints

checkpoints = Checkpoints(sys.argv[1], num_kept=2)
def save(step, size):
    model = {"a": jnp.arange(size, dtype=jnp.float32) ** 0.5}
    rest = {"step": jnp.asarray(step)}
    checkpoints.save(step, model=model, optimizer=rest, iterator={"next_batch": step})
save(10, 100)
checkpoints.wait()
# Every write beyond 64 KB fails from here on, as on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    save(20, 1_000_000)
    checkpoints.wait()
except CheckpointError as error:
    print(error)
    sys.exit(7)
"""


def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", DISK_FULL, tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 7, run.stderr
    (sentence,) = run.stdout.splitlines()
    assert sentence.startswith(f"checkpoint 20 in {tmp_path} could not be written: ")
    assert "The checkpoint of step 10 is whole: make room" in sentence
    assert issubclass(CheckpointError, OSError)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() == 10
    checkpoints.close()


@pytest.mark.parametrize(
    "damage",
    [b"", b"[1]", b'{"8": ', b'{"x": 1}', b"\xff", b'{"8": 1' + b"0" * 400 + b"}"],
    ids=range(6),
)
def test_damaged_scores_are_set_aside_with_a_warning(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 8)
    checkpoints.close()
    (tmp_path / "scores.json").write_bytes(damage)
    checkpoints = Checkpoints(tmp_path)
    assert "scores.json must hold the scores of evaluations" in caplog.text
    assert not checkpoints.has_score(8)
    checkpoints.record_score(8, 0.25)
    checkpoints.close()
    assert json.loads((tmp_path / "scores.json").read_text()) == {"8": 0.25}


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
