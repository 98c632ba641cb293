import dataclasses
import pickle
import shlex
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.config import base_config
from segnext_jax.datasets import DatasetSpec, get_spec
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline import (
    EvaluationBatches,
    Fitting,
    RandomScaleCropFlip,
    TrainLoader,
    open_source,
    open_split,
)
from segnext_jax.pipeline.transforms import decode_pair
from segnext_jax.preparation.command import prepare
from segnext_jax.preparation.segmentation import SegmentationBuilder

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


def configure(batch_size, **fields):
    """Return a configuration with fields of its data set."""
    config = base_config()
    config.batch_size = batch_size
    for name, value in {"num_workers": 0, "num_threads": 2, **fields}.items():
        config.data[name] = value
    return config


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(Tiny(data_dir=folder, raw_dir=folder))
    return folder


def test_examples_come_in_the_order_of_preparation(data_dir):
    source = open_source(SPEC, "train", data_dir)
    assert len(source) == 12
    names = [example["image_id"] for example in source]
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
    command = f"segnext-jax prepare shapes --data_dir={shlex.quote(str(tmp_path))}"
    assert str(error.value).endswith(f"Prepare it: {command}")


@pytest.mark.parametrize("name", ["dataset_info.json", "*train*"])
def test_a_damaged_set_is_refused_in_one_sentence(data_dir, tmp_path, name):
    root = shutil.copytree(data_dir, tmp_path / "copy")
    (path,) = root.rglob(name)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(
        ValueError, match=r"tiny.1\.0\.0 must be a whole prepared data set"
    ):
        open_source(SPEC, "train", root)[0]


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
    assert "prepare it again: segnext-jax prepare tiny" in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """A folder with two training pairs and a validation pair, ids 1 and 2 of two."""
    for split, names in (("train", ("b/1", "a")), ("val", ("a",))):
        for k, name in enumerate(names):
            image = tmp_path / "images" / split / f"{name}.jpg"
            mask = tmp_path / "masks" / split / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((4, 6 + k, 3), 200, np.uint8))
            mask.write_bytes(encode_label(np.full((4, 6 + k), 1 + k, np.uint8)))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


@pytest.fixture
def data(folder):
    """The section of a configuration that means the folder."""
    data = base_config().data
    data.name = "folder"
    data.folder = str(folder)
    data.zero_is_ignore = True
    return data


def test_a_folder_is_read_as_it_is(folder, data):
    source = open_split(data, resolve_spec(data), "train")
    assert len(source) == 2
    assert [source[i]["image_id"] for i in range(2)] == ["a", "b/1"]
    copy = pickle.loads(pickle.dumps(source))
    path = folder / "images" / "train" / "b" / "1.jpg"
    assert copy[1]["image"] == path.read_bytes()
    for index, (width, label) in enumerate(((7, 1), (6, 0))):
        image, labels = decode_pair(copy[index])
        assert image.shape == (4, width, 3)
        np.testing.assert_array_equal(labels, np.full((4, width), label, np.uint8))


def test_batches_of_a_folder_hold_its_labels(data):
    spec = resolve_spec(data)
    batches = EvaluationBatches(
        open_split(data, spec, "train"), Fitting(), num_classes=2, batch_size=1
    )
    labels = {batch.image_ids[0]: batch.labels[0] for batch in batches}
    assert {name: label.shape for name, label in labels.items()} == {
        "a": (4, 7),
        "b/1": (4, 6),
    }
    assert (labels["a"] == 1).all() and (labels["b/1"] == 0).all()


def test_training_batches_of_a_folder_and_of_its_prepared_set_are_equal(
    folder, data, tmp_path
):
    spec = resolve_spec(data)
    direct = open_split(data, spec, "train")

    class Prepared(SegmentationBuilder):
        spec = DatasetSpec("mine", ("a", "b"), ((1, 2, 3), (4, 5, 6)))

        def find_examples(self, root):
            return {"train": range(2)}

        def load(self, index):
            example = direct[index]
            return example["image_id"], example["image"], example["label"]

    prepare(Prepared(data_dir=tmp_path / "prepared", raw_dir=folder))
    prepared = open_source(Prepared.spec, "train", tmp_path / "prepared")
    config = configure(3, crop_size=(5, 7), base_scale=(9, 6))
    transform = RandomScaleCropFlip.from_config(config.data, Prepared.spec)
    loaders = [TrainLoader(source, transform, config) for source in (direct, prepared)]
    for _ in range(4):
        first, second = (next(loader) for loader in loaders)
        np.testing.assert_array_equal(first["image"], second["image"])
        np.testing.assert_array_equal(first["label"], second["label"])
    for loader in loaders:
        loader.close()


def test_a_split_that_a_folder_lacks(data):
    with pytest.raises(ValueError, match=r"no split 'test': it has train, val\. Make"):
        open_split(data, resolve_spec(data), "test")


def test_a_folder_with_other_classes_than_the_network_is_refused(data):
    spec = DatasetSpec("folder", ("a", "c"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="class 1 is 'b' there and 'c' here"):
        open_split(data, spec, "train")


def test_a_broken_mask_is_named_by_its_path(folder, data):
    path = folder / "masks" / "val" / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    source = open_split(data, resolve_spec(data), "val")
    with pytest.raises(ValueError, match=f"^{path}: its label map cannot be decoded"):
        source[0]


def test_a_mask_that_fits_the_photograph_before_exif_turns_it_says_so(folder, data):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    picture.save(folder / "images" / "val" / "a.jpg", exif=orientation)
    source = open_split(data, resolve_spec(data), "val")
    message = r"^a: .*EXIF orientation turns it, \(6, 4\) .*: got \(4, 6\)"
    with pytest.raises(ValueError, match=message):
        decode_pair(source[0])
    mask = np.ones((6, 4), np.uint8)
    (folder / "masks" / "val" / "a.png").write_bytes(encode_label(mask))
    assert decode_pair(source[0])[0].shape == (6, 4, 3)
    (folder / "masks" / "val" / "a.png").write_bytes(encode_label(mask[:5]))
    with pytest.raises(ValueError, match="a: photograph and mask must have one size"):
        decode_pair(source[0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_names_the_broken_file(folder, data, num_workers):
    path = folder / "masks" / "train" / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    config = configure(2, crop_size=(4, 4), base_scale=(7, 4), num_workers=num_workers)
    spec = resolve_spec(data)
    transform = RandomScaleCropFlip.from_config(config.data, spec)
    loader = TrainLoader(open_split(data, spec, "train"), transform, config)
    with pytest.raises(ValueError, match=f"^{path}: its label map cannot be decoded"):
        next(loader)
    path.unlink()
    with pytest.raises(ValueError, match=f"missing file: {path}"):
        next(loader)
