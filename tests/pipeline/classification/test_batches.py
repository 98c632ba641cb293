"""Batches of photographs: order, purity, sources, evaluation."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from segnext_jax.config import base_config
from segnext_jax.datasets.photographs import photograph_classes
from segnext_jax.pipeline.classification.batches import photograph_eval_batches
from segnext_jax.pipeline.classification.random_augment import RandAugment
from segnext_jax.pipeline.classification.resized_crop import (
    RandomResizedCrop,
    central_crop,
)
from segnext_jax.pipeline.classification.sources import open_photographs
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.preparation.command import prepare
from segnext_jax.preparation.imagenet import ImageNet

CROP = RandomResizedCrop(
    crop_size=(16, 24),
    area_range=(0.3, 1.0),
    aspect_range=(3 / 4, 4 / 3),
    flip_probability=0.5,
    augment=RandAugment(2, 0.5, 9.0, 0.5, (124, 116, 104)),
    colour_jitter=0.4,
)
PLAIN = dataclasses.replace(CROP, augment=None, colour_jitter=0.0)


@dataclasses.dataclass
class Generated:
    """Photographs made in memory: the grey level and the class are the number."""

    count: int = 10

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = np.full((20 + index, 33, 3), index, np.uint8)
        encoded = cv2.imencode(".png", image)[1].tobytes()
        return {"image": encoded, "label": index, "image_id": f"photo_{index}"}


def loader(crop=CROP, process_index=0, process_count=1, **options) -> TrainLoader:
    config = base_config()
    small = {"batch_size": 4, "seed": 5, "num_workers": 0, "num_threads": 2}
    for name, value in {**small, **options}.items():
        section = config if name in ("batch_size", "seed") else config.data
        section[name] = value
    return TrainLoader(
        Generated(),
        crop,
        config,
        process_index=process_index,
        process_count=process_count,
    )


def take(count, crop=CROP, **options) -> list[dict[str, np.ndarray]]:
    with loader(crop, **options) as batches:
        return [next(batches) for _ in range(count)]


def assert_same(left, right) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_images_keep_their_labels_and_each_epoch_holds_each_once():
    batches = take(15, PLAIN)
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels.dtype == np.int32
    for batch in batches:
        assert batch["image"].shape == (4, 16, 24, 3)
        assert batch["image"].dtype == np.uint8
        expected = np.broadcast_to(
            batch["label"][:, None, None, None], batch["image"].shape
        )
        np.testing.assert_array_equal(batch["image"], expected)
    epochs = labels.reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_batches_depend_on_the_seed_and_not_on_threads():
    first = take(5)
    assert_same(first, take(5, num_threads=4, prefetch_batches=5))
    other = take(5, seed=6)
    assert any(
        (a["image"] != b["image"]).any() for a, b in zip(first, other, strict=True)
    )


def test_worker_processes_do_not_change_the_batches():
    assert_same(take(5), take(5, num_workers=2))


def test_restored_loader_goes_on_where_the_other_was():
    expected = take(6)
    with loader() as first:
        for _ in range(2):
            next(first)
        state = first.state()
    with loader() as second:
        second.restore(state)
        assert_same([next(second) for _ in range(4)], expected[2:])


def test_processes_hold_consecutive_rows_of_the_same_batch():
    """So that pairs that are mixed on the device do not depend on their number."""
    parts = [take(3, process_index=i, process_count=2) for i in range(2)]
    joined = [
        {name: np.concatenate([a[name], b[name]]) for name in a}
        for a, b in zip(*parts, strict=True)
    ]
    assert_same(joined, take(3))


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_sees_each_photograph_once(process_count):
    source = Generated()
    seen = []
    for index in range(process_count):
        batches = photograph_eval_batches(
            source,
            batch_size=4,
            crop_size=(16, 24),
            crop_share=0.9,
            process_index=index,
            process_count=process_count,
        )
        for batch in batches:
            assert len(batch["image"]) == 4 // process_count
            for image, label, is_real in zip(*batch.values(), strict=True):
                assert (image == label).all()
                seen += [int(label)] if is_real else []
    assert sorted(seen) == list(range(10))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two classes; names whose order differs from that of their photographs."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                path = root / split / name / f"{name}_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = rng.integers(0, 256, (9 + label, 7 + i, 3)).astype(np.uint8)
                cv2.imwrite(str(path), image)
    return root


def section(**fields) -> ConfigDict:
    return ConfigDict({"name": "folder", "folder": "", "data_dir": "", **fields})


def test_folder_and_prepared_set_hold_the_same(tree, tmp_path):
    prepare(ImageNet(name="insects", data_dir=tmp_path, raw_dir=tree))
    folder = section(folder=str(tree))
    prepared = section(name="insects", data_dir=str(tmp_path))
    assert photograph_classes(folder) == photograph_classes(prepared) == ("ant", "bee")
    for split in ("train", "val"):
        ours, theirs = (
            open_photographs(data, ("ant", "bee"), split) for data in (folder, prepared)
        )
        assert len(ours) == len(theirs) == {"train": 6, "val": 4}[split]
        for i in range(len(ours)):
            assert ours[i]["image"] == theirs[i]["image"]
            assert ours[i]["label"] == theirs[i]["label"] == i // (len(ours) // 2)
            assert theirs[i]["image_id"] in ours[i]["image_id"]
        again = pickle.loads(pickle.dumps(theirs))
        assert again[1] == theirs[1]


def test_evaluation_crops_the_photographs_themselves(tree):
    source = open_photographs(section(folder=str(tree)), ("ant", "bee"), "val")
    (batch,) = photograph_eval_batches(
        source, batch_size=6, crop_size=(4, 4), crop_share=0.8
    )
    np.testing.assert_array_equal(batch["mask"], [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(batch["label"][:4], [0, 0, 1, 1])
    path = tree / "val/bee/bee_0.png"
    expected = central_crop(cv2.imread(str(path))[..., ::-1], (4, 4), 0.8)
    np.testing.assert_array_equal(batch["image"][2], expected)


def test_data_that_do_not_fit_are_named(tree, tmp_path):
    data = section(folder=str(tree))
    with pytest.raises(ValueError, match=r"'bee' is not \(1 such folders\)"):
        open_photographs(data, ("ant", "cat"), "val")
    with pytest.raises(FileNotFoundError, match="test must hold CLASS"):
        open_photographs(data, ("ant", "bee"), "test")
    with pytest.raises(FileNotFoundError, match=r"train/CLASS/\*\.jpg"):
        photograph_classes(section(folder=str(tmp_path / "none")))
    missing = section(name="imagenet", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"segnext-jax prepare imagenet"):
        photograph_classes(missing)


def test_set_of_masks_is_refused(shapes_dir):
    with pytest.raises(ValueError, match="it holds masks"):
        photograph_classes(section(name="shapes", data_dir=str(shapes_dir)))
