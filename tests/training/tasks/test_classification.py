"""Classification as a task: classes, batches and evaluation, without training."""

import json

import cv2
import jax
import numpy as np
import pytest

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder, run_folder
from segnext_jax.models.initialization import initialize
from segnext_jax.ops import sharding
from segnext_jax.pipeline.classification.resized_crop import (
    RandomResizedCrop,
    central_crop,
)
from segnext_jax.training.evaluate import evaluate
from segnext_jax.training.tasks.classification import Classification
from segnext_jax.training.tasks.task import make_task

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two photographs of each class to train, one to evaluate, of noise."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (36 + i, 44, 3)).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{i}.png"), pixels)
    return root


@pytest.fixture
def config(photographs):
    path = "configs/imagenet_tiny.py"
    overrides = [
        "model.embed_dims=8,8,8,8",
        "model.depths=1,1,1,1",
        "model.mlp_ratios=1,1,1,1",
        # Faster to compile than the shifted form.
        "model.depthwise=grouped",
        "data.name=folder",
        f"data.folder={photographs}",
        "data.crop_size=32,32",
        "data.num_workers=0",
        "batch_size=8",
        "evaluation.batch_size=8",
    ]
    return config_lib.load(path, overrides)


def test_classes_are_those_of_the_folders_and_stay_those_of_the_run(config, tmp_path):
    named = run_folder.with_classes(config, tmp_path / "run")
    assert named.data.classes == CLASSES and config.data.classes == ()
    run_folder.claim(named, tmp_path / "run")
    # Without the photographs the run still knows them.
    with config.unlocked():
        config.data.folder = str(tmp_path / "none")
    assert run_folder.with_classes(config, tmp_path / "run").data.classes == CLASSES


def test_network_of_another_task_is_refused(config, tmp_path):
    run_folder.claim(
        run_folder.with_classes(config, tmp_path / "run"), tmp_path / "run"
    )
    other = config_lib.load(
        "configs/shapes_tiny.py",
        ["model.embed_dims=8,8,8,8"],
    )
    with pytest.raises(ValueError, match="config.task is classification there, segm"):
        run_folder.check_network(other, tmp_path / "run")


def test_crop_has_the_recipe_of_the_config(config):
    crop = RandomResizedCrop.from_config(config)
    assert (crop.area_range, crop.aspect_range) == ((0.08, 1.0), (3 / 4, 4 / 3))
    augment = crop.augment
    assert (augment.num_operations, augment.probability) == (2, 0.5)
    assert (augment.magnitude, augment.magnitude_deviation) == (9.0, 0.5)
    # timm: min(255, round(255 * 0.5)), to the even number.
    assert augment.fill == (128, 128, 128)


def test_evaluation_is_that_of_the_network_on_each_photograph(
    config, photographs, tmp_path
):
    config = run_folder.with_classes(config, tmp_path / "run")
    task = make_task(config, sharding.make_mesh())
    assert isinstance(task, Classification)
    variables = initialize(task.model, seed=1)
    metrics = task.measure(variables)

    images = np.stack(
        [
            central_crop(
                cv2.imread(str(photographs / "val" / name / "0.png"))[..., ::-1],
                (32, 32),
                0.9,
            )
            for name in CLASSES
        ]
    )
    inputs = (images.astype(np.float32) - 127.5) / 127.5
    scores = jax.jit(task.model.apply)(variables, inputs)
    best = np.argsort(-np.asarray(scores), axis=1)[:, :5]
    labels = np.arange(len(CLASSES))
    np.testing.assert_array_equal(metrics.num_images, 1)
    np.testing.assert_array_equal(metrics.num_first, best[:, 0] == labels)
    np.testing.assert_array_equal(
        metrics.num_among, (best == labels[:, None]).any(axis=1)
    )

    # The same of a folder of weights, which is no segmentation network.
    folder = tmp_path / "model"
    model_folder.save_model(folder, variables, config_lib.to_json(config))
    assert evaluate(config, folder).summary() == metrics.summary()
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["step"] is None and tuple(results["class_top1"]) == CLASSES
    with pytest.raises(ValueError, match=r"one of classification.*init_from"):
        segnext_jax.load(folder)


def test_loader_gives_batches_and_names(config, tmp_path):
    config = run_folder.with_classes(config, tmp_path / "run")
    with make_task(config, sharding.make_mesh()).make_loader() as loader:
        batches = [next(loader) for _ in range(7)]
        names = [loader.image_ids(number) for number in range(7)]
    for batch, ids in zip(batches, names, strict=True):
        found = [CLASSES[label] for label in batch["label"]]
        assert found == [name.partition("/")[0] for name in ids]
    # Four epochs of 14 photographs.
    assert len({name for ids in names for name in ids}) == 14
