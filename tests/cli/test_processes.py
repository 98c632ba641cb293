"""Several processes: options, and real runs of two and four on this machine."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from segnext_jax.cli.processes import ProcessOptions, join
from segnext_jax.training.monitor.metric_writer import METRICS_FILE

ROOT = pathlib.Path(__file__).parents[2]
NUM_DEVICES = 8


@pytest.mark.parametrize(
    "options",
    [
        {"coordinator": "host:1"},
        {"num_processes": 2},
        {"process_id": 0},
        {"coordinator": "host:1", "num_processes": 2},
        {"num_processes": 2, "process_id": 1},
    ],
)
def test_half_of_the_options_is_refused(options):
    with pytest.raises(ValueError, match="belong together.*Give all three"):
        ProcessOptions(**options)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        ProcessOptions(coordinator="host", num_processes=2, process_id=0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\): got 2"):
        ProcessOptions(coordinator="host:1", num_processes=2, process_id=2)


def test_one_process_needs_nothing():
    join(ProcessOptions())


def test_processes_that_nothing_started_are_one_sentence(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "segnext_jax.main", "--distributed"),
            f"--config={ROOT / 'configs' / 'shapes_tiny.py'}",
            f"--workdir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: --distributed needs processes that SLURM")
    assert "Traceback" not in result.stderr


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(arguments, num_processes):
    """Run processes that share the eight devices; return what each logged."""
    flags = os.environ["XLA_FLAGS"]
    share = NUM_DEVICES // num_processes
    count = "--xla_force_host_platform_device_count="
    environment = {
        **os.environ,
        "XLA_FLAGS": flags.replace(f"{count}{NUM_DEVICES}", f"{count}{share}"),
    }
    port = free_port()
    processes = []
    for index in range(num_processes):
        several = [
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={num_processes}",
            f"--process_id={index}",
        ]
        processes.append(
            subprocess.Popen(
                [*arguments, *(several if num_processes > 1 else [])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        )
    logs = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * num_processes, logs
    return logs


@pytest.fixture(scope="module")
def command(shapes_dir, tiny_network):
    def build(workdir, *overrides):
        fields = (
            *tiny_network,
            f"data.data_dir={shapes_dir}",
            "data.crop_size=32,48",
            "data.num_workers=0",
            "batch_size=8",
            "log_every=1",
            "checkpoint_every=4",
            "eval_every=100",
            "optimizer.warmup_steps=2",
            "evaluation.batch_size=8",
            "evaluation.num_overlays=2",
            *overrides,
        )
        return [
            *(sys.executable, "-m", "segnext_jax.main"),
            f"--config={ROOT / 'configs' / 'shapes_tiny.py'}",
            f"--workdir={workdir}",
            *(f"--config.{field}" for field in fields),
        ]

    return build


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("processes") / "alone"
    start(command(workdir, "num_steps=8"), 1)
    return workdir


def losses(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    values = [json.loads(line) for line in lines]
    assert len({line["step"] for line in values if "loss" in line}) == 8
    return [line["loss"] for line in values if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (4, 2), (1, 4)])
def test_processes_give_the_numbers_of_one_and_go_on_in_another_number(
    alone, command, tmp_path, first, then
):
    workdir = tmp_path / "several"
    # Ends by SIGTERM: the configuration stays that of eight steps.
    run = command(workdir, "num_steps=8")
    logs = start([sys.executable, "-c", STOP_AFTER_THREE, *run[3:]], first)
    # All agree on a step, which is one that none has begun.
    (saved,) = {re.search(r"checkpoint of step (\d+) of 8", log)[1] for log in logs}
    assert 3 <= int(saved) < 8
    logs = start(run, then)
    assert all(f"Going on from the checkpoint of step {saved}." in log for log in logs)
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-5, atol=0)
    ours, theirs = (
        json.loads((folder / "evaluation.json").read_text())
        for folder in (workdir, alone)
    )
    assert ours["mIoU"] == pytest.approx(theirs["mIoU"], abs=2e-3)
    assert ours["step"] == theirs["step"] == 8


# Runs the main job; after three steps the machine is taken away from all processes.
STOP_AFTER_THREE = """
import os, signal, sys
from segnext_jax import main as program
from segnext_jax.training import loop

class Stopping(loop.MetricWriter):
    def write(self, step, values):
        super().write(step, values)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

loop.MetricWriter = Stopping
sys.argv[0] = "segnext_jax.main"
program.main(sys.argv[1:])
"""
