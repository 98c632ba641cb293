"""`segnext_jax.load` on a converted folder: labels, logits, features, refusals."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import segnext_jax
from segnext_jax import checkpoint
from segnext_jax import config as config_lib
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config(tiny_network):
    path = ROOT / "configs" / "camvid_tiny.py"
    scale = ("evaluation.scale=96,64", "evaluation.size_multiple=32")
    return config_lib.load(str(path), [*tiny_network, *scale])


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    path = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save_model(path, variables, config_lib.to_json(config))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return segnext_jax.load(folder)


def photograph(height=45, width=70):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_prediction_has_the_size_of_the_image(model):
    image = photograph()
    result = model.predict(image)
    assert result.labels.shape == (45, 70) and result.labels.dtype == np.uint8
    assert result.probabilities.shape == (45, 70, 11)
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(-1))
    assert result.overlay().shape == image.shape
    areas = result.class_areas()
    assert sum(areas.values()) == pytest.approx(1)
    assert set(areas) <= set(model.classes)
    assert list(areas.values()) == sorted(areas.values(), reverse=True)


def test_path_pillow_image_and_array_give_the_same(model, tmp_path):
    image = photograph()
    Image.fromarray(image).save(tmp_path / "photo.png")
    expected = model.predict(image).probabilities
    for other in (tmp_path / "photo.png", Image.fromarray(image)):
        np.testing.assert_array_equal(model.predict(other).probabilities, expected)


def test_logits_take_bases_and_are_fixed_without(model):
    images = np.random.default_rng(0).normal(size=(2, 33, 47, 3)).astype(np.float32)
    fixed = model.logits(images)
    assert fixed.shape == (2, 5, 6, 11)
    np.testing.assert_array_equal(fixed, model.logits(images))
    bases = np.random.default_rng(1).uniform(size=(2, 32, 4)).astype(np.float32)
    other = model.logits(images, bases)
    assert np.abs(np.asarray(other - fixed)).max() > 1e-6


def test_features_are_the_four_stages(model):
    images = np.zeros((1, 33, 47, 3), np.float32)
    shapes = [feature.shape for feature in model.features(images)]
    assert shapes == [(1, 9, 12, 8), (1, 5, 6, 16), (1, 3, 3, 16), (1, 2, 2, 24)]


def test_configuration_comes_along(model, config):
    assert model.config == config
    assert model.classes[0] == "sky"


def test_what_is_no_image_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 array .*got float64 \(4, 5\)"):
        model.predict(np.zeros((4, 5)))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png"):
        model.predict(tmp_path / "text.png")


def test_encoder_alone_is_refused(config, tmp_path):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    del variables["params"]["decode_head"]
    path = tmp_path / "encoder"
    checkpoint.save_model(path, variables, config_lib.to_json(config))
    with pytest.raises(ValueError, match="a whole network is needed.*decode_head"):
        segnext_jax.load(path)


def test_weights_of_other_sizes_are_refused(config, folder, tmp_path):
    variables, _ = checkpoint.load_model(folder)
    other = config_lib.from_json(config_lib.to_json(config))
    other.data.name = "cityscapes"
    path = tmp_path / "other"
    checkpoint.save_model(path, jax.device_get(variables), config_lib.to_json(other))
    with pytest.raises(ValueError, match=r"conv_seg.* is \[11\], needed \[19\]"):
        segnext_jax.load(path)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the network to load must exist"):
        segnext_jax.load(tmp_path / "nothing")
