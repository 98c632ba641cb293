import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from segnext_jax.datasets import DatasetSpec
from segnext_jax.pipeline import open_source
from segnext_jax.preparation import shard_writer
from segnext_jax.preparation.command import prepare
from segnext_jax.preparation.segmentation import SegmentationBuilder

SPEC = DatasetSpec("drawn", ("a", "b"), ((0, 0, 0), (9, 9, 9)))
NUM = 23


class Drawn(SegmentationBuilder):
    spec = SPEC

    def _open(self):
        return {"train": range(NUM), "val": range(1)}

    def load(self, example):
        labels = np.full((5, 4 + example), example % 2, np.uint8)
        _, image = cv2.imencode(".jpg", np.zeros((*labels.shape, 3), np.uint8))
        return f"{example:03d}", image.tobytes(), labels


@pytest.mark.parametrize("shard_bytes", [1, 5000, 1 << 30])
def test_shards_hold_all_examples_in_order_at_any_size(
    shard_bytes, tmp_path, monkeypatch
):
    monkeypatch.setattr(shard_writer, "_SHARD_BYTES", shard_bytes)
    prepare(Drawn(data_dir=tmp_path))
    folder = tmp_path / "drawn/1.0.0"
    names = sorted(path.name for path in folder.glob("drawn-train*"))
    assert len(names) == {1: NUM, 1 << 30: 1}.get(shard_bytes, len(names))
    if shard_bytes == 5000:
        assert 1 < len(names) < NUM
    assert names == [
        f"drawn-train.array_record-{k:05d}-of-{len(names):05d}"
        for k in range(len(names))
    ]
    source = open_source(SPEC, "train", tmp_path)
    assert [source[k]["image_id"] for k in range(len(source))] == [
        f"{k:03d}" for k in range(NUM)
    ]
    info = tfds.builder_from_directory(folder).info
    assert info.splits["train"].num_examples == NUM
    assert info.splits["val"].num_examples == 1
