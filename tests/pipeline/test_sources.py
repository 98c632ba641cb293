import dataclasses
import pickle
import shlex

import cv2
import numpy as np
import pytest

from segnext_jax.datasets import DatasetSpec, get_spec
from segnext_jax.datasets.builder import SegmentationBuilder
from segnext_jax.datasets.decode import encode_label
from segnext_jax.datasets.preparation import prepare
from segnext_jax.pipeline import FolderSource, open_source
from segnext_jax.pipeline.transforms import decode_pair

SPEC = DatasetSpec("tiny", ("a", "b"), ((1, 2, 3), (4, 5, 6)))


class Tiny(SegmentationBuilder):
    spec = SPEC

    def find_examples(self, root):
        return {"train": range(12), "val": range(3)}

    def load(self, example):
        image = np.full((5, 7 + example, 3), example, np.uint8)
        labels = np.full((5, 7 + example), example % 2, np.uint8)
        encoded = cv2.imencode(".png", image)[1].tobytes()
        return f"näme {example}", encoded, labels


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(Tiny(data_dir=folder, raw_dir=folder))
    return folder


def test_examples_come_in_the_order_of_preparation(data_dir):
    source = open_source(SPEC, "train", data_dir)
    assert len(source) == 12
    names = [source[i]["image_id"] for i in range(12)]
    assert names == [f"näme {i}" for i in range(12)]
    image, labels = decode_pair(source[11])
    assert (image == 11).all() and image.shape == (5, 18, 3)
    assert (labels == 1).all() and labels.shape == (5, 18)


def test_a_source_can_be_sent_to_another_process(data_dir):
    source = open_source(SPEC, "val", data_dir)
    first = source[2]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[2] == first
    assert len(pickle.dumps(source)) < 1000


def test_a_set_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        open_source(get_spec("shapes"), "train", tmp_path)
    command = f"python data/shapes/prepare.py --data_dir={shlex.quote(str(tmp_path))}"
    assert str(error.value).endswith(f"Prepare it: {command}")


def test_an_unknown_split_lists_the_known_ones(data_dir):
    with pytest.raises(ValueError, match="no split 'test': .* holds train, val"):
        open_source(SPEC, "test", data_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "c")}, "class 1 is 'b' there and 'c' here"),
        (
            {"classes": ("a", "b", "c"), "colours": ((0, 0, 0),) * 3},
            "2 classes against 3",
        ),
        ({"ignore_label": 254}, "ignore label 255, and 'tiny' has 254"),
    ],
)
def test_a_set_prepared_with_another_table_is_refused(change, message, data_dir):
    other = dataclasses.replace(SPEC, **change)
    with pytest.raises(ValueError, match=message) as error:
        open_source(other, "train", data_dir)
    assert "prepare it again: python data/tiny/prepare.py" in str(error.value)


def write_pair(root, image_name, mask_name):
    for folder, name in (("images", image_name), ("masks", mask_name)):
        if name is None:
            continue
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder == "images":
            cv2.imwrite(str(path), np.full((4, 6, 3), 200, np.uint8))
        else:
            path.write_bytes(encode_label(np.ones((4, 6), np.uint8)))


def test_folders_are_matched_by_the_path_below_them(tmp_path):
    write_pair(tmp_path, "b/2.jpg", "b/2.png")
    write_pair(tmp_path, "b/1.JPG", "b/1.png")
    write_pair(tmp_path, "a.v1.png", "a.v1.png")
    (tmp_path / "images" / "Thumbs.db").touch()
    source = FolderSource(tmp_path / "images", tmp_path / "masks")
    assert [source[i]["image_id"] for i in range(3)] == ["a.v1", "b/1", "b/2"]
    image, labels = decode_pair(pickle.loads(pickle.dumps(source))[1])
    assert image.shape == (4, 6, 3) and (labels == 1).all()


def test_unmatched_files_are_named(tmp_path):
    write_pair(tmp_path, "1.jpg", "1.png")
    write_pair(tmp_path, "2.jpg", None)
    write_pair(tmp_path, None, "3.png")
    with pytest.raises(ValueError, match="without a mask: 2; without a photograph: 3"):
        FolderSource(tmp_path / "images", tmp_path / "masks")
    for k in range(10, 20):
        write_pair(tmp_path, f"{k}.jpg", None)
    with pytest.raises(ValueError, match="10, 11, 12, 13, 14 and 6 more"):
        FolderSource(tmp_path / "images", tmp_path / "masks")


def test_empty_and_missing_folders_and_twins_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*images"):
        FolderSource(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no photographs \(\.jpg, \.jpeg"):
        FolderSource(tmp_path / "images", tmp_path / "masks")
    write_pair(tmp_path, "1.jpg", "1.png")
    write_pair(tmp_path, "1.png", "1.png")
    with pytest.raises(ValueError, match="differ in their suffix only"):
        FolderSource(tmp_path / "images", tmp_path / "masks")
