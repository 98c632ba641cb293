"""The program for Ray Data on a real local Ray; one of two workers is killed."""

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import psutil
import pytest
from pyarrow import parquet

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.images.decode import decode_label
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt

ROOT = pathlib.Path(__file__).parents[2]
NUM_IMAGES = 200


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="needs ray, which no extra brings: pip install 'ray[data]'",
)
def test_a_killed_worker_loses_no_image(tiny_network, tmp_path):
    scale = ("evaluation.scale=96,64", "evaluation.size_multiple=32")
    config = config_lib.load("camvid_tiny", [*tiny_network, *scale])
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    model_folder.save_model(tmp_path / "tiny", variables, config_lib.to_json(config))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        image = rng.integers(0, 256, (45, 70, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{number:03d}.png"), image)

    program = ROOT / "docs" / "programs" / "ray_prediction.py"
    words = [tmp_path / "tiny", tmp_path / "in", tmp_path / "out", "2", "--cores=1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, program, *words],
            stdout=log,
            stderr=log,
            env={**os.environ, "RAY_OVERRIDE_RESOURCES": '{"CPU": 4}'},
        )
        labels = tmp_path / "out"
        while process.poll() is None and len(list(labels.glob("*.png"))) < 20:
            time.sleep(0.05)
        started = psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in started if "MapWorker" in " ".join(one.cmdline())]
        assert len(workers) == 2, (tmp_path / "log").read_text()
        workers[0].send_signal(signal.SIGKILL)
        assert len(list(labels.glob("*.png"))) < NUM_IMAGES
        assert process.wait(600) == 0, (tmp_path / "log").read_text()
    model = segnext_jax.load(tmp_path / "tiny")
    for number in range(NUM_IMAGES):
        name = f"{number:03d}.png"
        expected = model.predict(tmp_path / "in" / name)
        found = decode_label((tmp_path / "out" / name).read_bytes())
        assert np.mean(found != expected.labels) < 0.01  # Another batch rounds.
    rows = parquet.read_table(tmp_path / "out" / "areas").to_pylist()
    paths = sorted(row["path"] for row in rows)
    assert paths == [str(tmp_path / "in" / f"{n:03d}.png") for n in range(NUM_IMAGES)]
    assert all(abs(sum(row[c] for c in model.classes) - 1) < 1e-6 for row in rows)
