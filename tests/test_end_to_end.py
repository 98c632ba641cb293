"""The main job as a user starts it: train, kill, go on, evaluate."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import segnext_jax
from segnext_jax import main
from segnext_jax.cli import command as cli_command
from segnext_jax.datasets import SPECS
from segnext_jax.pipeline import open_source
from segnext_jax.training.monitor.metric_writer import METRICS_FILE

ROOT = pathlib.Path(__file__).parents[1]
NUM_STEPS = 12


@pytest.fixture(scope="module")
def command(shapes_dir, tiny_network):
    """Return the command line of a run in a workdir."""

    def build(workdir, *extra, data_dir=shapes_dir) -> list[str]:
        overrides = (
            *tiny_network,
            f"data.data_dir={data_dir}",
            "data.crop_size=32,48",
            "data.photometric=true",
            "model.drop_path_rate=0.2",
            "model.dropout_rate=0.1",
            "batch_size=8",
            f"num_steps={NUM_STEPS}",
            "log_every=1",
            "checkpoint_every=3",
            "eval_every=8",
            "optimizer.warmup_steps=4",
            "evaluation.batch_size=8",
            "evaluation.num_overlays=3",
        )
        return [
            *(sys.executable, "-m", "segnext_jax.main"),
            f"--config={ROOT / 'configs' / 'shapes_tiny.py'}",
            f"--workdir={workdir}",
            *(f"--config.{override}" for override in overrides),
            *extra,
        ]

    return build


def run(arguments) -> str:
    """Run to the end and return what was logged."""
    result = subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def metrics(workdir) -> list[dict]:
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(workdir) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics(workdir) if "loss" in line}


def steps_done(workdir) -> list[int]:
    """Return the steps in the metrics of a run that may be writing them."""
    path = workdir / METRICS_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(re.search(r"\d+", line)[0]) for line in lines if re.search(r"\d", line)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, command):
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    return workdir, run(command(workdir))


def test_run_leaves_metrics_overlays_checkpoints_and_a_table(unbroken):
    workdir, log = unbroken
    lines = metrics(workdir)
    assert list(losses(workdir)) == list(range(1, NUM_STEPS + 1))
    evaluations = [line["step"] for line in lines if "mIoU" in line]
    assert evaluations == [8, 12]
    assert len(lines[-1]["IoU"]) == 7 and "mDice" in lines[-1]
    expected = {"loss", "learning_rate", "images_per_second", "data_wait_share"}
    expected |= {"gradient_norm", "update_norm", "learning_rate/head", "step_seconds"}
    assert expected <= lines[0].keys()
    assert list((workdir / "tensorboard").glob("events*"))
    assert len(list((workdir / "overlays" / "step_0000012").glob("*.png"))) == 3
    folders = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    # The last two, and the better one of steps 8 and 12.
    scores = {line["step"]: line["mIoU"] for line in lines if "mIoU" in line}
    best = 8 if scores[8] > scores[12] else 12
    assert folders == sorted({9, 12, best})
    assert "mIoU" in log and "ground" in log
    assert f"Overlays are in {workdir}" in log


def test_evaluation_of_the_checkpoint_equals_the_last_of_training(unbroken, command):
    workdir, _ = unbroken
    last = [line for line in metrics(workdir) if "mIoU" in line][-1]
    (workdir / "evaluation.json").unlink()
    log = run(command(workdir, "--mode=evaluate"))
    assert "Evaluating step 12" in log
    results = json.loads((workdir / "evaluation.json").read_text())
    for name in ("mIoU", "mAcc", "aAcc"):
        assert results[name] == pytest.approx(last[name], abs=1e-6)


def kill_at(arguments, workdir, step: int) -> None:
    """Kill a run after a step is reported and a checkpoint is there."""
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        has_checkpoint = any((workdir / "checkpoints").glob("[0-9]"))
        if has_checkpoint and max(steps_done(workdir), default=0) >= step:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"


def stop_at(arguments, workdir, step: int, delay: float, whole_group: bool) -> str:
    """Send SIGTERM ``delay`` seconds after a step is reported; return the log."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if max(steps_done(workdir), default=0) >= step:
            break
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, process.stderr.read()
    # A scheduler tells all processes of a job, worker processes included.
    kill = os.killpg if whole_group else os.kill
    kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    return log


def assert_goes_on(arguments, workdir, unbroken) -> None:
    """Let a run go on to its end, which is that of a run that was never stopped."""
    log = run(arguments)
    assert "Going on from the checkpoint of step" in log
    assert losses(workdir) == losses(unbroken)
    ends = [
        json.loads((folder / "evaluation.json").read_text())
        for folder in (workdir, unbroken)
    ]
    assert ends[0] == ends[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5, 7, 10])
def test_a_killed_run_goes_on_to_the_same_end(unbroken, command, tmp_path, step):
    workdir = tmp_path / "killed"
    kill_at(command(workdir), workdir, step)
    assert_goes_on(command(workdir), workdir, unbroken[0])


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_a_run_that_is_told_to_end_and_then_killed_goes_on_to_the_same_end(
    unbroken, command, tmp_path, seed
):
    rng = np.random.default_rng(seed)
    step, delay = int(rng.integers(1, 8)), rng.uniform(0, 0.3)
    workdir = tmp_path / "told"
    workers = f"--config.data.num_workers={seed % 2}"
    log = stop_at(command(workdir, workers), workdir, step, delay, seed % 2 == 0)
    (saved,) = re.findall(r"SIGTERM: ended with a checkpoint of step (\d+) of", log)
    done = max(steps_done(workdir))
    # No later than the step that was under way, and no step is lost.
    assert step <= done <= int(saved) <= done + 1
    assert (workdir / "checkpoints" / saved).is_dir()
    if int(saved) + 2 < NUM_STEPS:
        kill_at(command(workdir), workdir, int(saved) + 2)
    assert_goes_on(command(workdir), workdir, unbroken[0])


@pytest.mark.slow
def test_a_trace_and_the_best_checkpoint_are_there_when_asked_for(
    unbroken, command, tmp_path
):
    workdir = tmp_path / "traced"
    run(command(workdir, "--config.profile_steps=2,3", "--config.num_steps=9"))
    assert list((workdir / "profile").rglob("*.xplane.pb"))
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores.keys() == {"8", "9"}
    best = max(scores, key=lambda step: (scores[step], int(step)))
    log = run(
        command(
            workdir,
            "--config.num_steps=9",
            "--mode=evaluate",
            "--which=best",
        )
    )
    assert f"Evaluating step {best} of" in log
    is_newest = best == "9"
    folder = workdir if is_newest else workdir / "evaluations" / f"step_{best}"
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["mIoU"] == pytest.approx(scores[best], abs=1e-6)


@pytest.mark.slow
def test_a_run_that_breaks_ends_in_one_sentence_and_names_the_images(command, tmp_path):
    workdir = tmp_path / "broken"
    rates = (
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.warmup_ratio=1",
    )
    arguments = (*rates, "--config.max_broken_steps=2", "--config.log_every=2")
    result = subprocess.run(
        command(workdir, *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert result.returncode == 1
    assert "of at most 2 such steps" in result.stderr
    assert "config.max_broken_steps allows 2" in result.stderr
    assert "Traceback" not in result.stderr
    lines = (workdir / "broken_steps.jsonl").read_text().splitlines()
    assert len(lines) > 2
    assert all(len(json.loads(line)["image_ids"]) == 8 for line in lines)
    # As it was after the last step that was not broken.
    state = segnext_jax.load(workdir / "broken_state")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables))


@pytest.mark.slow
def test_debugging_shows_where_the_first_nan_arises(command, tmp_path):
    arguments = ("--config.optimizer.learning_rate=1e15", "--config.debug=true")
    result = subprocess.run(
        command(tmp_path / "debug", *arguments, "--config.optimizer.warmup_ratio=1"),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert result.returncode == 1
    assert "invalid value (nan) encountered in" in result.stderr
    assert "segnext_jax/models" in result.stderr


@pytest.mark.slow
def test_a_folder_trains_as_the_prepared_set_does(
    unbroken, command, shapes_dir, tmp_path
):
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    write_folder(folder, shapes_dir)
    workdir = tmp_path / "run"
    own = ("--config.data.name=folder", f"--config.data.folder={folder}")
    run(command(workdir, *own))
    assert losses(workdir) == losses(unbroken[0])
    results = json.loads((workdir / "evaluation.json").read_text())
    expected = json.loads((unbroken[0] / "evaluation.json").read_text())
    assert results.pop("settings") != expected["settings"]  # The data's name.
    assert results == {k: v for k, v in expected.items() if k != "settings"}

    folder.rename(moved)
    (moved / "classes.txt").unlink()
    run(command(workdir, own[0], f"--config.data.folder={moved}", "--mode=evaluate"))
    (elsewhere,) = (workdir / "evaluations").iterdir()
    again = json.loads((elsewhere / "evaluation.json").read_text())
    assert again["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-6)
    assert segnext_jax.load(workdir).classes == SPECS["shapes"].classes


def write_folder(folder, data_dir):
    """Write the prepared shapes as plain files, in the same order by name."""
    for split in ("train", "val"):
        source = open_source(SPECS["shapes"], split, data_dir)
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(len(source)):
            example = source[index]
            name = f"{split}/{index:03d}.png"
            (folder / "images" / name).write_bytes(example["image"])
            (folder / "masks" / name).write_bytes(example["label"])
    (folder / "classes.txt").write_text("\n".join(SPECS["shapes"].classes))


def test_workdir_of_another_config_is_refused(unbroken, command, capsys):
    workdir, _ = unbroken
    before = sorted(str(path) for path in workdir.rglob("*"))
    arguments = command(workdir, "--config.seed=3")[3:]
    assert cli_command.run(main.main, arguments) == 1
    error = capsys.readouterr().err
    assert "config.seed is 0 there, 3 here" in error
    assert "Traceback" not in error
    assert sorted(str(path) for path in workdir.rglob("*")) == before


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_label_outside_the_classes_ends_in_one_sentence(command, tmp_path, num_workers):
    """Replace a mask in the prepared records themselves."""
    data_dir = tmp_path / "prepared"
    write_with_bad_label(data_dir)
    workdir = tmp_path / "run"
    result = subprocess.run(
        command(workdir, f"--config.data.num_workers={num_workers}", data_dir=data_dir),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if "error:" in line]
    assert "image_5: label ids must lie in [0, 6]" in errors[-1]
    assert "found 37" in errors[-1]
    assert "Traceback" not in result.stderr


def write_with_bad_label(data_dir):
    import cv2

    from segnext_jax.preparation.command import prepare
    from segnext_jax.preparation.segmentation import SegmentationBuilder

    class Broken(SegmentationBuilder):
        spec = SPECS["shapes"]

        def find_examples(self, root):
            return {"train": range(8), "val": range(8)}

        def load(self, example):
            labels = np.full((48, 64), 37 if example == 5 else example % 7, np.uint8)
            _, image = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))
            return f"image_{example}", image.tobytes(), labels

        def _check_pair(self, *pair):
            """Let it through, as an older version or another program might have."""

    prepare(Broken(data_dir=data_dir, raw_dir=data_dir.parent))
