"""Worker processes: what they need, and their end when they or the parent is killed."""

import concurrent.futures
import contextlib
import gc
import multiprocessing
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from segnext_jax.config import base_config
from segnext_jax.datasets import SPECS
from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline import RandomScaleCropFlip, TrainLoader, workers
from segnext_jax.pipeline.classification.resized_crop import RandomResizedCrop

ROOT = pathlib.Path(__file__).parents[2]
SHARED_MEMORY = pathlib.Path("/dev/shm")
# Of no other program's shared memory: bytes of the images of a batch.
SIZE = 4 * 19 * 37 * 3

EVENT = multiprocessing.synchronize.Event
NUMBER = multiprocessing.sharedctypes.Synchronized
PREFETCHING_BY_PROCESS = "ProcessPrefetchDatasetIterator"

PROGRAM = """
if __name__ == "__main__":
    import multiprocessing, sys, time
    sys.path.insert(0, {folder!r})
    from test_workers import loader
    batches = loader(num_workers=2, crop_size=(19, 37))
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


class Grey:
    """Examples that are all the same."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {
            "image": cv2.imencode(".png", np.zeros((40, 50, 3), np.uint8))[1].tobytes(),
            "label": encode_label(np.zeros((40, 50), np.uint8)),
            "image_id": f"photo_{index}",
        }


def configure(batch_size=4, **options):
    config = base_config()
    config.batch_size = batch_size
    small = {"crop_size": (16, 24), "base_scale": (64, 48), "max_class_share": 1.0}
    for name, value in {**small, "num_threads": 2, **options}.items():
        config.data[name] = value
    return config


def loader(**options):
    config = configure(**options)
    transform = RandomScaleCropFlip.from_config(config.data, SPECS["shapes"])
    return TrainLoader(Grey(), transform, config)


def wait_for(is_reached, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_reached() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_reached()


def segments():
    return [
        path.name
        for path in SHARED_MEMORY.glob("psm_*")
        if path.exists() and path.stat().st_size == SIZE
    ]


def is_running(pid):
    status = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().split(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="looks into Linux's /dev/shm")
def test_workers_and_their_memory_go_with_a_killed_parent(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(folder=str(pathlib.Path(__file__).parent)))
    log = tmp_path / "log"
    with log.open("w") as file:
        parent = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    with parent.stdout as lines:
        children = [int(pid) for pid in lines.readline().split()]
    try:
        assert len(children) == 2 and wait_for(lambda: len(segments()) >= 8)
        # Under a debugger they wait, and say nothing.
        parent.send_signal(signal.SIGSTOP)
        time.sleep(1)
        assert all(map(is_running, children)) and not log.read_text()
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(map(is_running, children)))
    assert wait_for(lambda: not segments())
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (
            signal.SIGKILL,
            r"killed \(SIGKILL\), as the kernel does where memory runs out",
        ),
        (
            signal.SIGBUS,
            r"killed \(SIGBUS\), as happens where its shared memory is full",
        ),
        (signal.SIGTERM, "ended with exit code -15"),
    ],
)
def test_a_killed_worker_is_one_sentence_with_the_remedies(number, how):
    with loader(num_workers=1) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, number)
        match = (
            f"a worker process of the input pipeline was {how}.*/dev/shm.*"
            "--shm-size=1g.*config.data.num_workers.*num_workers=0"
        )
        with pytest.raises(ChildProcessError, match=match):
            for _ in range(100):
                next(batches)
    assert not multiprocessing.active_children()


def test_a_worker_takes_no_lock_for_which_its_parent_would_wait():
    with loader(num_workers=1) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        (iterator,) = (
            iterator
            for iterator in gc.get_objects()
            if type(iterator).__name__ == PREFETCHING_BY_PROCESS
            and iterator._prefetch_process is worker
        )
        locks = [
            shared._cond if isinstance(shared, EVENT) else shared.get_lock()
            for shared in vars(iterator).values()
            if isinstance(shared, (EVENT, NUMBER))
        ]
        assert len(locks) >= 2
        # As if a worker had been killed with them.
        with (
            concurrent.futures.ThreadPoolExecutor() as pool,
            contextlib.ExitStack() as s,
        ):
            for lock in locks:
                s.enter_context(lock)
            # More than any queue holds.
            made = pool.submit(lambda: [next(batches) for _ in range(30)])
            assert len(made.result(timeout=60)) == 30


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="looks into Linux's /dev/shm")
def test_batches_that_shared_memory_cannot_hold_are_refused_before_the_first():
    match = (
        r"up to \d+ MiB of /dev/shm, of which \d+ MiB are free. Give the "
        r"container more \(docker run --shm-size=\d+g.*config.data.num_workers"
    )
    with pytest.raises(ValueError, match=match):
        loader(num_workers=1, batch_size=10**8, crop_size=(1024, 1024))
    with pytest.raises(ValueError, match=match):
        TrainLoader(
            Grey(),
            RandomResizedCrop((1024, 1024), (0.1, 1.0), (0.8, 1.2), 0.5, None, 0.0),
            configure(num_workers=1, batch_size=10**8),
        )
    loader(num_workers=0, batch_size=10**8, crop_size=(1024, 1024))


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="looks into Linux's /dev/shm")
def test_the_need_is_what_idle_workers_fill():
    with loader(num_workers=2, prefetch_batches=1, crop_size=(19, 37)) as batches:
        next(batches)
        wait_for(lambda: len(segments()) == 8)
        time.sleep(0.5)
        # One less: this batch has been copied.
        assert (len(segments()) + 1) * 12 == workers.shared_bytes(2, 1, 12)


UNGUARDED = """
import numpy as np
from segnext_jax.pipeline.stream import BatchStream

class Numbers(BatchStream):
    def _make_batch(self):
        return np.atleast_1d

    def num_examples(self):
        return 1

    def image_ids(self, number):
        return ["one"]

print(next(Numbers(batch_bytes=8, num_workers=1)))
"""


def test_a_script_whose_work_is_not_guarded_is_told_so(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(UNGUARDED)
    ended = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("ChildProcessError: a worker process")
    assert 'must stand below `if __name__ == "__main__":`' in last
