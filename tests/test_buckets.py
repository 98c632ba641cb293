"""Commands whose runs, weights, inputs and outputs lie in buckets."""

import io
import json
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest
from absl import logging

import segnext_jax
from segnext_jax import main
from segnext_jax.__main__ import dispatch
from segnext_jax.checkpoints.reading import checkpoint_folders
from segnext_jax.cli import command as cli_command
from segnext_jax.cli import storage

ROOT = pathlib.Path(__file__).parents[1]
NUM_STEPS = 6


@pytest.fixture(scope="module")
def address(networks, tmp_path_factory):
    """A folder in S3 and one in GCS."""
    name = tmp_path_factory.mktemp("buckets").name
    return {scheme: f"{scheme}://bucket/{name}" for scheme in ("s3", "gs")}


@pytest.fixture(scope="module")
def trained(address, unpack_old, old_data, tmp_path_factory):
    """An earlier version's run in a bucket, of two steps more, and their log."""
    workdir, log = f"{address['s3']}/run", io.StringIO()
    run = unpack_old(tmp_path_factory.mktemp("old")) / "run"
    files = {str(p.relative_to(run)): p for p in run.rglob("*") if p.is_file()}
    storage.upload(storage.as_path(workdir), files)
    cli_command.set_up_logging()
    handler = logging.get_absl_handler().python_handler
    stderr = handler.setStream(log)
    main.main([f"--workdir={workdir}", f"--config.data.folder={old_data}"])
    handler.setStream(stderr)
    return storage.as_path(workdir), log.getvalue()


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


def names_below(address):
    return set(storage.listed(storage.as_path(address)))


def test_a_run_without_a_config_file_goes_on_in_its_bucket(trained):
    workdir, log = trained
    assert "Going on from the checkpoint of step 6." in log
    assert f"Results are in {workdir}: evaluation.json" in log
    assert "/segnext_jax-" not in log
    names = names_below(workdir)
    assert {"config.json", "scores.json", "evaluation.json", "confusion.png"} < names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert "lock" not in names
    assert list(losses(workdir)) == [8]  # Every second one is written.
    assert max(checkpoint_folders(workdir)) == 8
    assert json.loads((workdir / "evaluation.json").read_text())["step"] == 8


def test_an_evaluation_of_a_step_is_in_the_bucket(trained, old_data):
    workdir, _ = trained
    options = [f"--checkpoint={workdir}", f"--config.data.folder={old_data}"]
    dispatch(["evaluate", *options, "--which=4"])
    (folder,) = (workdir / "evaluations").iterdir()
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["step"] == 4
    assert found["mIoU"] == pytest.approx(0.50945, abs=1e-3)


def test_a_network_of_one_bucket_predicts_from_another_into_it(trained, address):
    photos, image = f"{address['gs']}/photos", np.zeros((40, 56, 3), np.uint8)
    for name in ("a.jpg", "deep/b.jpg"):
        content = cv2.imencode(".jpg", image)[1].tobytes()
        storage.write(storage.as_path(photos) / name, content)
    output = f"{address['gs']}/out"
    options = ["--batch_size=1", f"--checkpoint={trained[0]}", f"--output={output}"]
    dispatch(["predict", photos, *options])
    names = {name for name in names_below(output) if name.startswith("labels/")}
    assert names == {"labels/a.png", "labels/deep/b.png"}


def test_a_network_of_a_bucket_is_published_into_another(trained, address):
    target = f"{address['gs']}/shared"
    dispatch(["publish", f"--checkpoint={trained[0]}", f"--output={target}"])
    names = {"config.json", "model.safetensors", "README.md", "SHA256SUMS"}
    assert names == names_below(target)
    ours, theirs = map(segnext_jax.load, (trained[0], target))
    jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def test_a_network_of_a_bucket_is_exported_into_another(trained, address):
    target = f"{address['gs']}/exported"
    options = [f"--checkpoint={trained[0]}", "--size=32", "--platforms=tpu"]
    dispatch(["export", *options, f"--output={target}"])
    names = {"load_exported.py", "metadata.json", "model.stablehlo"}
    assert names_below(target) == names
    assert segnext_jax.export.load(target)[1]["network"]["step"] == 8


def test_what_cannot_be_read_of_a_bucket_leaves_nothing_in_it(
    trained, address, old_data, tiny_network
):
    """A file that is not there, and one whose sizes are of no published network."""
    missing, file = (f"{address['gs']}/{name}" for name in ("no.pth", "own.npz"))
    dispatch(["convert", f"--checkpoint={trained[0]}", f"--output={file}"])
    run, model = f"{address['s3']}/new", f"{address['s3']}/model"
    for path, told in ((missing, "does not exist. Run"), (file, "must have the sizes")):
        with pytest.raises(ValueError, match=f"{path}.* {told}"):
            options = [*tiny_network, "num_steps=2", f"init_from={path}"]
            segnext_jax.train(old_data, workdir=run, overrides=options)
        with pytest.raises(ValueError, match="is not there|must have the sizes"):
            dispatch(["convert", f"--checkpoint={path}", f"--output={model}"])
    assert names_below(run) == names_below(model) == set()
    assert storage.as_path(f"{run}.py").is_file()  # As chosen; it may be edited.


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
