"""Several processes: options, and real runs of two and four on this machine."""

import json
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.cli import storage
from segnext_jax.cli.processes import ProcessOptions, joined
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
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
    with joined(ProcessOptions()):
        pass


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


@pytest.fixture(scope="module")
def run(start_processes):
    """Run processes to their end; return what each logged."""

    def to_the_end(arguments, num_processes):
        processes = start_processes(*[arguments] * num_processes, num_devices=8)
        codes, logs = processes.ended(900)
        assert codes == [0] * num_processes, logs
        return logs

    return to_the_end


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
def alone(command, run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("processes") / "alone"
    run(command(workdir, "num_steps=8"), 1)
    return workdir


def losses(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    values = [json.loads(line) for line in lines]
    assert len({line["step"] for line in values if "loss" in line}) == 8
    return [line["loss"] for line in values if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (4, 2), (1, 4)])
def test_processes_give_the_numbers_of_one_and_go_on_in_another_number(
    alone, command, run, tmp_path, first, then
):
    workdir = tmp_path / "several"
    # Ends by SIGTERM: the configuration stays that of eight steps.
    arguments = command(workdir, "num_steps=8")
    logs = run([sys.executable, "-c", STOP_AFTER_THREE, *arguments[3:]], first)
    # All agree on a step, which is one that none has begun.
    (saved,) = {re.search(r"checkpoint of step (\d+) of 8", log)[1] for log in logs}
    assert 3 <= int(saved) < 8
    logs = run(arguments, then)
    assert all(f"Going on from the checkpoint of step {saved}." in log for log in logs)
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-5, atol=0)
    ours, theirs = (
        json.loads((folder / "evaluation.json").read_text())
        for folder in (workdir, alone)
    )
    assert ours["mIoU"] == pytest.approx(theirs["mIoU"], abs=2e-3)
    assert ours["step"] == theirs["step"] == 8


@pytest.mark.slow
def test_processes_share_a_run_in_a_bucket(alone, command, run, networks, tmp_path):
    workdir = storage.as_path(f"s3://bucket/{tmp_path.name}/run")
    fields = ("num_steps=8", "mesh.fsdp=2", "mesh.fsdp_min_size=16")
    arguments = command(workdir, *fields)
    run([sys.executable, "-c", STOP_AFTER_THREE, *arguments[3:]], 2)
    logs = run(arguments, 2)
    assert all("Going on from the checkpoint of step" in log for log in logs)
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-5, atol=0)
    assert (workdir / "evaluation.json").exists()


# Runs the main job; after three steps the machine is taken away from all processes.
STOP_AFTER_THREE = """
import os, signal, sys
from segnext_jax import main as program
from segnext_jax.training import loop

class Stopping(loop.MetricWriter):
    def write(self, step, values, group):
        super().write(step, values, group)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

loop.MetricWriter = Stopping
sys.argv[0] = "segnext_jax.main"
program.main(sys.argv[1:])
"""


def has_step(workdir, step):
    """Return a function that tells whether a step is written down."""
    path = workdir / METRICS_FILE

    def is_reached():
        lines = path.read_text().splitlines() if path.exists() else []
        return any(json.loads(line)["step"] >= step for line in lines)

    return is_reached


@pytest.mark.slow
def test_a_full_disk_of_one_ends_all_and_the_run_goes_on(
    start_processes, command, tmp_path
):
    workdir = tmp_path / "run"
    run = command(
        workdir, "num_steps=100000", "batch_size=2", "evaluation.batch_size=2"
    )
    processes = start_processes([sys.executable, "-c", FULL_DISK, *run[3:]], run)
    processes.wait_until(has_step(workdir, 7))
    codes, logs = processes.ended(60)
    assert codes == [1, 1], logs
    for log in logs:
        assert "checkpoint 8 in" in log
        assert "could not be written: File too large. The checkpoint of step 4" in log
        assert "Traceback" not in log
    processes = start_processes(run, run)
    processes.wait_until(has_step(workdir, 9))
    processes.running[1].send_signal(signal.SIGINT)
    codes, logs = processes.ended(60)
    assert codes == [1, 130], logs
    for log in logs:
        assert "Going on from the checkpoint of step 4." in log
        assert "interrupted" in log


# Runs the main job; from the sixth step on no file can have more than 12 KB, the log
# included.
FULL_DISK = """
import resource, sys
from segnext_jax import main as program
from segnext_jax.cli import command
from segnext_jax.training import loop

class Filling(loop.MetricWriter):
    def write(self, step, values, group):
        super().write(step, values, group)
        if step == 6:
            self._is_writing = False
            resource.setrlimit(resource.RLIMIT_FSIZE, (12288, 12288))

loop.MetricWriter = Filling
sys.argv[0] = "segnext_jax.main"
sys.exit(command.run(program.main, sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_broken_mask_of_one_ends_all(start_processes, command, tmp_path):
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (data / kind / split).mkdir(parents=True)
        for index in range(4):
            for kind, values in (
                ("images", rng.integers(0, 256, (40, 56, 3), np.uint8)),
                ("masks", rng.integers(0, 3, (40, 56), np.uint8)),
            ):
                path = data / kind / split / f"street_{index}.png"
                Image.fromarray(values).save(path)
    (data / "classes.txt").write_text("road\nhouse\ntree\n")
    broken = data / "masks" / "train" / "street_2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    run = command(
        tmp_path / "run",
        *("num_steps=100", "batch_size=2", "evaluation.batch_size=2"),
        *("data.name=folder", f"data.folder={data}"),
    )
    codes, logs = start_processes(run, run).ended(400)
    assert codes == [1, 1], logs
    for log in logs:
        assert log.count("error: ") == 1 and "street_2" in log.splitlines()[-1]
        assert "Traceback" not in log


def test_processes_of_a_prediction_take_a_shard_each(
    start_processes, tiny_network, tmp_path
):
    config = config_lib.load("camvid_tiny", [*tiny_network, "evaluation.scale=96,64"])
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    model_folder.save_model(tmp_path / "tiny", variables, config_lib.to_json(config))
    for number in range(1, 6):
        path = tmp_path / "in" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((30, 45, 3), 40 * number, np.uint8)).save(path)
    (tmp_path / "in" / "0.png").write_bytes(b"none")
    out = tmp_path / "out"
    arguments = [
        *(sys.executable, "-m", "segnext_jax.predict", str(tmp_path / "in")),
        *(f"--checkpoint={tmp_path / 'tiny'}", f"--output={out}", "--format=labels"),
    ]
    codes, logs = start_processes(arguments, arguments).ended(300)
    # Process 0 cannot read one of its inputs.
    assert codes == [3, 0], logs
    assert "1 of 3 inputs could not be predicted:\n" in logs[0]
    found = sorted(path.name for path in (out / "labels").iterdir())
    assert found == [f"{number}.png" for number in range(1, 6)]
    for shard in (0, 1):
        manifest = out / "manifests" / f"0000{shard}-of-00002.jsonl"
        last = json.loads(manifest.read_text().splitlines()[-1])
        assert last["num_inputs"] == 3 and last["is_complete"]
