"""Metrics on disk."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from segnext_jax.training.monitor.metric_writer import METRICS_FILE, MetricWriter


def read(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_values_are_written_at_once(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(5, {"loss": 1.5})
    assert read(tmp_path) == [{"step": 5, "loss": 1.5}]
    writer.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_tensorboard_has_groups_and_json_the_names(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"loss": 1.5, "learning_rate/head": 0.25})
    values = {"mIoU": 0.5, "mAcc": None, "IoU": {"sky": 0.75, "road": None}}
    writer.write(2, values, "val")
    writer.close()
    assert read(tmp_path)[1] == {"step": 2, **values}
    (path,) = (tmp_path / "tensorboard").glob("events*")
    found, content = {}, path.read_bytes()
    while content:
        # TFRecord: length, its checksum, the event, its checksum.
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        found |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        content = content[16 + length :]
    assert found == {
        "train/loss": (1, 1.5),
        "train/learning_rate/head": (1, 0.25),
        "val/mIoU": (2, 0.5),
        "val_iou/sky": (2, 0.75),
    }


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


def test_weights_and_biases_gets_numbers_and_pictures(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb (pip install wandb)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = MetricWriter(tmp_path / "run", wandb_project="segnext")
    writer.write(1, {"loss": 1.5, "per_class": [1, 2]})
    writer.write_overlay(1, "a", np.zeros((4, 5, 3), np.uint8))
    writer.close()
    (log,) = (tmp_path / "run").rglob("*.wandb")
    assert b"loss" in log.read_bytes() and b"overlays/a" in log.read_bytes()


def test_weights_and_biases_that_is_not_installed_is_one_sentence(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="not installed: pip install wandb"):
        MetricWriter(tmp_path / "run", wandb_project="segnext")


def test_only_one_of_several_processes_writes(tmp_path):
    writer = MetricWriter(tmp_path / "run", is_writing=False)
    writer.write(1, {"loss": 1.5})
    path = writer.write_overlay(1, "a", np.zeros((4, 5, 3), np.uint8))
    writer.close()
    assert not path.exists() and not (tmp_path / "run").exists()
