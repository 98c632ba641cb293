"""Metrics on disk."""

import json

import numpy as np
from PIL import Image

from segnext_jax.metric_writer import METRICS_FILE, MetricWriter


def read(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_values_are_written_at_once(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(5, {"loss": 1.5})
    assert read(tmp_path) == [{"step": 5, "loss": 1.5}]
    writer.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_steps_that_will_be_done_again_are_removed(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (5, 10, 15):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 20, "lo')  # The process was killed here.
    writer = MetricWriter(tmp_path, first_step=10)
    writer.write(15, {"loss": 0.5})
    writer.close()
    assert [line["step"] for line in read(tmp_path)] == [5, 10, 15]
    assert read(tmp_path)[-1]["loss"] == 0.5


def test_overlay_is_a_png_of_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    writer = MetricWriter(tmp_path)
    path = writer.write_overlay(3, "a/b", picture)
    writer.close()
    assert path.name == "a_b.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
