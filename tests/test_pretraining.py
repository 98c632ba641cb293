"""Pre-training as a user starts it: train, go on, evaluate, start a segmentation."""

import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

import segnext_jax
from segnext_jax import weights

# Each run compiles for half a minute.
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
CLASSES = ("dark", "green", "red")
NUM_STEPS = 8


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs of three colours, as ImageNet has them."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    colours = {"dark": (20, 20, 20), "green": (40, 200, 40), "red": (40, 40, 200)}
    for split, count in (("train", 9), ("val", 5)):
        for name, colour in colours.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(0, 15, (40 + i, 52, 3))
                image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{i}.png"), image)
    return root


@pytest.fixture(scope="module")
def command(photographs, tiny_network):
    """Return the command line of a run in a workdir."""

    def build(workdir, *extra, config="imagenet_tiny", fields=()) -> list[str]:
        # The decoder is no part of a classifier.
        network = [f for f in tiny_network if "head" not in f and "rank" not in f]
        overrides = (
            *network,
            "data.name=folder",
            f"data.folder={photographs}",
            "data.crop_size=32,32",
            "data.num_workers=0",
            "batch_size=8",
            f"num_steps={NUM_STEPS}",
            "log_every=1",
            "checkpoint_every=3",
            "eval_every=1000",
            "optimizer.warmup_steps=2",
            "optimizer.cooldown_steps=1",
            "evaluation.batch_size=8",
        )
        return [
            *(sys.executable, "-m", "segnext_jax.main"),
            *(f"--config={ROOT / 'configs' / config}.py", f"--workdir={workdir}"),
            *(f"--config.{field}" for field in (fields or overrides)),
            *extra,
        ]

    return build


def run(arguments, returncode=0) -> str:
    """Run to the end and return what was logged."""
    result = subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert result.returncode == returncode, result.stderr
    return result.stderr


def losses(workdir) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    values = map(json.loads, lines)
    return {line["step"]: line["loss"] for line in values if "loss" in line}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, command):
    workdir = tmp_path_factory.mktemp("runs") / "pretrained"
    return workdir, run(command(workdir))


def test_run_names_classes_and_groups_and_leaves_results(pretrained):
    workdir, log = pretrained
    assert list(losses(workdir)) == list(range(1, NUM_STEPS + 1))
    assert "MSCANClassifier tiny, 3 classes" in log
    assert "weight decay x0" in log and "top1" in log
    results = json.loads((workdir / "evaluation.json").read_text())
    assert results["step"] == NUM_STEPS and results["images"] == 15
    assert tuple(results["class_top1"]) == CLASSES
    assert results["top1"] == pytest.approx(
        np.mean(list(results["class_top1"].values())), abs=1e-9
    )
    assert results["top5"] == 1.0  # Of three classes.
    stored = json.loads((workdir / "config.json").read_text())
    assert tuple(stored["data"]["classes"]) == CLASSES


def test_evaluation_of_the_checkpoint_equals_the_last_of_training(pretrained, command):
    workdir, _ = pretrained
    before = json.loads((workdir / "evaluation.json").read_text())
    (workdir / "evaluation.json").unlink()
    assert "Evaluating step 8" in run(command(workdir, "--mode=evaluate"))
    assert json.loads((workdir / "evaluation.json").read_text()) == before


def test_segmentation_network_is_not_loaded_from_it(pretrained):
    with pytest.raises(ValueError, match=r"one of classification.*init_from"):
        segnext_jax.load(pretrained[0])


def test_interrupted_run_goes_on_to_the_same_end(pretrained, command, tmp_path):
    workdir = tmp_path / "interrupted"
    run(command(workdir))
    # As if it had been killed before the last checkpoint.
    newest = workdir / "checkpoints" / str(NUM_STEPS)
    for path in sorted(newest.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    newest.rmdir()
    assert "Going on from the checkpoint of step 6" in run(command(workdir))
    assert losses(workdir) == losses(pretrained[0])
    ends = [weights.load(folder).variables for folder in (workdir, pretrained[0])]
    for name in ("params", "batch_stats"):
        assert_equal(ends[0][name], ends[1][name])


def assert_equal(left, right) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, dict):
            assert_equal(value, right[name])
        else:
            np.testing.assert_array_equal(value, right[name])


def test_segmentation_starts_from_the_encoder(
    pretrained, command, shapes_dir, tiny_network, tmp_path
):
    workdir = tmp_path / "segmentation"
    fields = (
        *tiny_network,
        f"init_from={pretrained[0]}",
        f"data.data_dir={shapes_dir}",
        "data.crop_size=32,32",
        "num_steps=1",
        # So small that a step leaves the weights where they are.
        "optimizer.learning_rate=1e-30",
        "optimizer.warmup_steps=0",
        "model.freeze_batch_norm=true",
        "evaluation.batch_size=8",
    )
    log = run(command(workdir, config="shapes_tiny", fields=fields))
    assert f"Starting from {pretrained[0]}" in log and "head.kernel" in log
    end, start = (weights.load(path).variables for path in (workdir, pretrained[0]))
    for name in ("params", "batch_stats"):
        assert_equal(end[name]["backbone"], start[name]["backbone"])
