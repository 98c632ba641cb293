"""Commands whose runs, weights, inputs and outputs lie in buckets."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import segnext_jax
from segnext_jax.__main__ import dispatch
from segnext_jax.checkpoints.reading import checkpoint_folders
from segnext_jax.cli import storage

ROOT = pathlib.Path(__file__).parents[1]
NUM_STEPS = 6


@pytest.fixture
def command(shapes_dir, tiny_network):
    """Return the command line of a run in a workdir."""

    def build(workdir) -> list[str]:
        overrides = (
            *(*tiny_network, f"data.data_dir={shapes_dir}", "data.crop_size=32,48"),
            *("batch_size=8", f"num_steps={NUM_STEPS}", "log_every=1"),
            *("checkpoint_every=1", f"eval_every={NUM_STEPS}"),
            *("optimizer.warmup_steps=2", "evaluation.batch_size=8"),
        )
        return [
            *("train", f"--config={ROOT / 'configs' / 'shapes_tiny.py'}"),
            *(f"--workdir={workdir}", *(f"--config.{each}" for each in overrides)),
        ]

    return build


def run(*arguments):
    """Run a command to its end; return what it logged."""
    result = subprocess.run(program(*arguments), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def program(*arguments):
    return [sys.executable, "-m", "segnext_jax", *map(str, arguments)]


def losses(workdir):
    lines = (storage.as_path(workdir) / "metrics.jsonl").read_text().splitlines()
    steps = map(json.loads, lines)
    return {line["step"]: line["loss"] for line in steps if "loss" in line}


def test_a_run_in_one_bucket_predicts_from_another_into_it(networks, command, tmp_path):
    workdir = f"s3://bucket/{tmp_path.name}/run"
    log = run(*command(workdir))
    assert f"Results are in {workdir}: evaluation.json" in log
    assert "/tmp/segnext_jax-" not in log
    names = set(storage.listed(storage.as_path(workdir)))
    assert {"config.json", "scores.json", "evaluation.json", "confusion.png"} < names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert any(name.startswith("overlays/step_0000006/") for name in names)
    assert list(losses(workdir)) == list(range(1, NUM_STEPS + 1))

    stored = json.loads((storage.as_path(workdir) / "evaluation.json").read_text())
    dispatch(["evaluate", f"--checkpoint={workdir}", "--config.evaluation.flip=true"])
    (folder,) = (storage.as_path(workdir) / "evaluations").iterdir()
    flipped = json.loads((folder / "evaluation.json").read_text())
    assert flipped["step"] == stored["step"] == NUM_STEPS

    network = segnext_jax.load(workdir)
    photos = storage.as_path(f"gs://bucket/{tmp_path.name}/photos")
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for name in ("a.jpg", "deep/b.jpg"):
        network.predict(image).save(photos / name, "overlay")
    found = network.predict(str(photos / "a.jpg"))
    output = f"gs://bucket/{tmp_path.name}/out"
    dispatch(["predict", str(photos), f"--checkpoint={workdir}", f"--output={output}"])
    names = storage.listed(storage.as_path(output))
    assert [name for name in names if name.startswith("labels/")] == [
        "labels/a.png",
        "labels/deep/b.png",
    ]
    found.save(tmp_path / "a.png", "labels")
    of_command = storage.as_path(output) / "labels" / "a.png"
    assert of_command.read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_kills_in_saves_lose_nothing(scheme, networks, command, tmp_path):
    unbroken, workdir = tmp_path / "run", f"{scheme}://bucket/{tmp_path.name}/run"
    run(*command(unbroken))
    networks[scheme].delay = 0.02  # A save takes a second, and most kills come in one.
    rng, had = np.random.default_rng(0), 0
    for _ in range(3):
        process = subprocess.Popen(
            program(*command(workdir)), stderr=subprocess.DEVNULL
        )
        address = storage.as_path(workdir)
        while not (address / "lock").exists() or len(checkpoint_folders(address)) == 0:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps = checkpoint_folders(address)
        assert max(steps) >= had
        had = max(steps)
        segnext_jax.load(workdir)
        (address / "lock").unlink(missing_ok=True)  # Which would lapse in a minute.
    networks[scheme].mend()
    run(*command(workdir))
    assert losses(workdir) == losses(unbroken)
