"""Metrics on disk."""

import contextlib
import io
import json
import subprocess
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


def test_what_is_no_number_is_null_and_every_line_is_json(tmp_path):
    def refuse(name):
        raise ValueError(name)

    values = {"loss": float("nan"), "norm": -np.inf, "IoU": [0.5, np.float64("nan")]}
    with contextlib.closing(MetricWriter(tmp_path)) as writer:
        writer.write(5, values)
    (line,) = (tmp_path / METRICS_FILE).read_text().splitlines()
    stored = json.loads(line, parse_constant=refuse)
    assert stored == {"step": 5, "loss": None, "norm": None, "IoU": [0.5, None]}


@pytest.mark.parametrize("damage", [b'{"step": 4, \xff}\n', b"\x00\x00\n", b"[1]\n"])
def test_a_damaged_line_does_not_stop_a_run(tmp_path, damage):
    (tmp_path / METRICS_FILE).write_bytes(b'{"step": 3}\n' + damage + b'{"step": 5}\n')
    MetricWriter(tmp_path, first_step=10).close()
    assert read(tmp_path) == [{"step": 3}, {"step": 5}]


def test_overlay_is_a_png_of_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    writer = MetricWriter(tmp_path)
    path = writer.write_overlay(3, "a/b", picture)
    writer.close()
    assert path.name == "a_b.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_tensorboard_gets_numbers_and_pictures_and_where_a_run_went_on(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    with contextlib.closing(MetricWriter(tmp_path, first_step=2)) as writer:
        writer.write(3, {"loss": 1.5, "IoU": [0.5]})
        writer.write_overlay(3, "a", picture)
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:
        # TFRecord: length, its checksum, the event, its checksum.
        length = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    version, start, numbers, overlay = events
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == event_pb2.SessionLog.START and start.step == 3
    assert [event.step for event in (numbers, overlay)] == [3, 3]
    (loss,) = numbers.summary.value
    assert (loss.tag, loss.simple_value) == ("train/loss", 1.5)
    (image,) = overlay.summary.value
    assert image.tag == "overlays/a"
    decoded = Image.open(io.BytesIO(image.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(decoded), picture)


FULL_DISK = """
import resource, sys
from segnext_jax.training.monitor.metric_writer import MetricWriter
writer = MetricWriter(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    for step in range(1000):
        writer.write(step, {f"value_{i}": 0.5 for i in range(int(sys.argv[2]))})
except OSError as error:
    print(error)
"""


# Many values fill the file of TensorBoard first, nested ones fill the other alone.
@pytest.mark.parametrize(("count", "name"), [(30, "tensorboard"), (0, METRICS_FILE)])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, count, name):
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path, str(count)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.stdout == f"[Errno 27] File too large: '{tmp_path / name}'\n"
    assert "Traceback" not in ended.stderr


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
