"""One writer: real processes that want the same folder."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from segnext_jax.checkpoints.lock import WriterLock

HOLDER = """
import pathlib, sys, time
from segnext_jax.checkpoints.lock import WriterLock
with WriterLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    with process.stdout as lines:
        assert lines.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_gets_one_sentence_with_host_and_process(holder, tmp_path):
    match = (
        f"{tmp_path} is written into by another training, process {holder.pid} on "
        rf"{os.uname().nodename} since \d+-.* or give another --workdir"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=match):
            WriterLock(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(holder, tmp_path, number):
    holder.send_signal(number)
    holder.wait()
    with WriterLock(tmp_path) as lock:
        lock.check()
        assert json.loads((tmp_path / "lock").read_bytes())["pid"] == os.getpid()
    with WriterLock(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"pid": 3}'])
def test_a_lock_that_names_nobody_holds_all_the_same(holder, tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(
        ValueError, match="another training, which .*lock does not name"
    ):
        WriterLock(tmp_path)


def test_other_processes_of_the_run_take_none(holder, tmp_path):
    with WriterLock(tmp_path, is_writing=False) as lock:
        lock.check()


@pytest.mark.parametrize("what", ["moved", "deleted", "deleted and made again"])
def test_a_folder_that_is_gone_ends_the_run(tmp_path, what):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with WriterLock(workdir) as lock:
        if what == "moved":
            workdir.rename(tmp_path / "other")
        else:
            shutil.rmtree(workdir)
        if what == "deleted and made again":
            workdir.mkdir()
            (workdir / "lock").write_text("{}")
        with pytest.raises(FileNotFoundError, match="must stay while the run goes on"):
            lock.check()
