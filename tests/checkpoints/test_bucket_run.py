"""A run in a bucket: its lock, its checkpoints, and a network that fails in a save."""

import contextlib
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
import s3fs

from segnext_jax.checkpoints import arrays, bucket_run, lock, reading, run_folder
from segnext_jax.checkpoints.arrays import abstract
from segnext_jax.checkpoints.checkpoints import CheckpointError, Checkpoints
from segnext_jax.cli import storage
from segnext_jax.config import base_config
from segnext_jax.ops.sharding import make_mesh, replicated


@contextlib.contextmanager
def opened(address, num_kept=1):
    """Yield the local folder and the checkpoints of a run."""
    with bucket_run.opened(storage.as_path(address)) as (folder, run):
        checkpoints = Checkpoints(folder, num_kept, bucket=run)
        yield folder, checkpoints
        checkpoints.close()


def save(checkpoints, step):
    model = {"params": {"kernel": jnp.full((64, 64), step, jnp.float32)}}
    optimizer = {"step": jnp.asarray(step)}
    checkpoints.save(step, model=model, optimizer=optimizer, iterator={"at": step})
    checkpoints.wait()


def in_bucket(address):
    """Return (steps of whole checkpoints, steps of which anything is there)."""
    run = storage.as_path(address)
    names = [n.split("/")[1] for n in storage.listed(run) if n.startswith("checkp")]
    return list(reading.checkpoint_folders(run)), sorted(map(int, set(names)))


# The same code is behind both.
mostly_s3 = pytest.mark.parametrize(
    "bucket", ["s3", pytest.param("gs", marks=pytest.mark.slow)], indirect=True
)


@mostly_s3
def test_what_a_run_leaves_is_in_the_bucket_and_comes_back(bucket, tmp_path):
    with opened(bucket) as (folder, checkpoints):
        (folder / "config.json").write_text("{}")
        (folder / "overlays").mkdir()
        (folder / "overlays" / "a.png").write_bytes(b"picture")
        (folder / ".hidden.partial").write_text("")
        for step in (1, 2):
            save(checkpoints, step)
        assert in_bucket(bucket)[0] == [2, 1]
    assert in_bucket(bucket) == ([2], [2])
    names = storage.listed(storage.as_path(bucket))
    assert {"config.json", "overlays/a.png"} < set(names)
    assert not {"lock", ".hidden.partial"} & set(names)
    with opened(bucket) as (folder, checkpoints):
        assert checkpoints.latest_step() == 2
        shapes = {"params": {"kernel": jnp.zeros((64, 64))}}, {"step": jnp.asarray(0)}
        model, optimizer = abstract(shapes, replicated(make_mesh()))
        model, _, iterator = checkpoints.restore(model=model, optimizer=optimizer)
        np.testing.assert_array_equal(model["params"]["kernel"], 2)
        assert iterator == {"at": 2}
        # Pictures stay where they are.
        assert (folder / "overlays").is_dir() and not any(
            (folder / "overlays").iterdir()
        )
    assert (storage.as_path(bucket) / "overlays" / "a.png").exists()
    assert not [path for path in tmp_path.parent.glob("segnext_jax-*")]


@mostly_s3
@pytest.mark.parametrize("fault", ["refused", "cut"])
def test_a_save_that_fails_is_one_sentence_and_the_one_before_stays(
    bucket, networks, fault, monkeypatch
):
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # gcsfs has no such setting.
    network = networks[bucket[:2]]
    with pytest.raises(CheckpointError) as failure, opened(bucket) as (_, checkpoints):
        save(checkpoints, 1)
        network.is_up, network.cut_after = fault != "refused", 8_000
        if fault == "refused":
            network.cut()
        save(checkpoints, 2)
    told = str(failure.value)
    assert told.startswith(f"checkpoint 2 in {bucket} could not be written: {bucket}")
    assert "must be within reach, and its bucket must allow this: " in told
    assert told.endswith("start the run again to go on from there.")
    assert "The checkpoint of step 1 is whole" in told
    network.mend()
    assert in_bucket(bucket)[0] == [1]
    (storage.as_path(bucket) / "lock").unlink()  # Which would lapse.
    with opened(bucket) as (_, checkpoints):
        assert checkpoints.latest_step() == 1
        save(checkpoints, 2)
    assert in_bucket(bucket) == ([2], [2])


@pytest.fixture
def asked(monkeypatch):
    """What S3 is asked from now on."""
    methods, call = [], s3fs.S3FileSystem._call_s3

    def note(store, method, *arguments, **options):
        methods.append(method)
        return call(store, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", note)
    return methods


def test_a_store_that_has_failed_is_asked_nothing_more_at_the_end(
    networks, tmp_path, asked, monkeypatch
):
    address, network = storage.as_path(f"s3://bucket/{tmp_path.name}"), networks["s3"]
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(storage.BucketError), bucket_run.opened(address) as (_, run):
        asked.clear()
        network.cut()
        run.bring()
    network.mend()
    assert asked == ["get_object"]  # Whose the lock is.
    assert (address / "lock").exists()  # It lapses.


def test_a_store_that_has_failed_is_asked_for_no_other_file(
    networks, tmp_path, asked, monkeypatch
):
    address, network = storage.as_path(f"s3://bucket/{tmp_path.name}"), networks["s3"]
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    asked.clear()
    network.cut()
    with pytest.raises(storage.BucketError):
        storage.remove(address, map(str, range(100)))
    network.mend()
    assert len(asked) <= 16  # One for each thread.


def test_a_sign_of_life_that_a_dead_store_keeps_waiting_is_not_waited_for(
    networks, tmp_path, asked, monkeypatch
):
    address, network = storage.as_path(f"s3://bucket/{tmp_path.name}"), networks["s3"]
    monkeypatch.setattr(bucket_run, "BEAT_SECONDS", 0.5)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 6)
    with pytest.raises(storage.BucketError), bucket_run.opened(address) as (_, run):
        asked.clear()
        network.cut()
        while not asked:
            time.sleep(0.01)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        run.bring()
    is_waiting = any(thread.is_alive() for thread in run._threads)
    network.mend()
    for thread in run._threads:
        thread.join()
    assert is_waiting


def test_a_folder_of_others_is_refused_and_stays_as_it_is(networks, tmp_path):
    address = storage.as_path(f"s3://bucket/{tmp_path.name}")
    for name in ("checkpoints/7/weights.bin", "photos/a.jpg"):
        storage.write(address / name, b"theirs")
    names = storage.listed(address)
    with pytest.raises(ValueError, match=f"{address} holds other files. Name another"):
        with bucket_run.opened(address) as (folder, _):
            run_folder.claim(base_config(), folder)
    assert storage.listed(address) == names
    storage.write(address / "lock", b"theirs")
    with pytest.raises(ValueError, match="which .*/lock does not name"):
        lock.BucketLock(address)


@pytest.mark.parametrize("resets", [False, True])
def test_a_short_fault_in_a_save_is_waited_for(networks, tmp_path, resets):
    address, network = f"s3://bucket/{tmp_path.name}", networks["s3"]
    with opened(address) as (_, checkpoints):
        network.resets, network.delay = resets, 0.01
        network.cut()
        threading.Timer(0.3, network.mend).start()
        save(checkpoints, 1)
    assert in_bucket(address)[0] == [1]


@mostly_s3
def test_one_training_at_a_time(bucket, monkeypatch):
    monkeypatch.setattr(bucket_run, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)
    with opened(bucket):
        with pytest.raises(ValueError, match=f"{bucket} is written into by another tr"):
            with opened(bucket):
                pass
    with opened(bucket):
        pass


@mostly_s3
def test_the_lock_of_a_killed_training_lapses(bucket, monkeypatch):
    monkeypatch.setattr(lock, "LAPSE_SECONDS", 0.4)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)
    address = storage.as_path(bucket)
    killed = lock.BucketLock(address)
    start = time.monotonic()
    ours = lock.BucketLock(address)
    assert time.monotonic() - start >= 0.4
    ours.beat()
    # It was not dead: it ends before it writes anything.
    with pytest.raises(FileNotFoundError, match="must stay this training's while"):
        killed.beat()
    killed.close()
    ours.check()
    ours.close()
    assert storage.listed(address) == []


# Saves one step after another, from the newest one on.
SAVE_ON = """
import sys
import jax.numpy as jnp
from segnext_jax.checkpoints import bucket_run, lock
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.cli import storage

lock.LAPSE_SECONDS, lock.LOOK_SECONDS = 0.5, 0.1
with bucket_run.opened(storage.as_path(sys.argv[1])) as (folder, run):
    checkpoints = Checkpoints(folder, 1, bucket=run)
    for step in range((checkpoints.latest_step() or 0) + 1, 10_000):
        model = {"params": {"kernel": jnp.full((64, 64), step, jnp.float32)}}
        step_only = {"step": jnp.asarray(step)}
        checkpoints.save(step, model=model, optimizer=step_only, iterator={"at": step})
        checkpoints.wait()
"""


@pytest.mark.slow
def test_kills_in_saves_leave_the_newest_whole_checkpoint(bucket):
    address, rng, had = storage.as_path(bucket), np.random.default_rng(0), 0
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", SAVE_ON, bucket])
        while max(reading.checkpoint_folders(address), default=0) < had + 2:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        had = max(reading.checkpoint_folders(address))
        with storage.local(reading.checkpoint_folders(address)[had]) as copy:
            assert reading.fault_of(copy) == (True, "")
            kernel = arrays.read(copy / "model")["params"]["kernel"]
            np.testing.assert_array_equal(kernel, had)
