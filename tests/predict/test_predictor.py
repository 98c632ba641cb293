"""`segnext_jax.load` on a converted folder: labels, logits, features, refusals."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder, reading
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt


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


def test_a_prediction_and_a_predictor_say_what_they_are(model):
    image = photograph()
    result = model.predict(image)
    (name, share), *_ = result.class_areas().items()
    height, width = image.shape[:2]
    assert repr(result).startswith(f"Prediction({height}x{width}, {name} {share:.1%}")
    assert repr(model) == "Predictor(SegNeXt tiny, 11 classes of camvid, whole)"
    page = model._repr_html_()
    assert page.count("<li>") == 11 and "<p>Predictor(SegNeXt tiny" in page


def test_a_file_that_does_not_exist_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a file: .*nope.jpg does not"):
        model.predict(tmp_path / "nope.jpg")


def test_features_are_the_four_stages(model):
    images = np.zeros((1, 33, 47, 3), np.float32)
    shapes = [feature.shape for feature in model.features(images)]
    assert shapes == [(1, 9, 12, 8), (1, 5, 6, 16), (1, 3, 3, 16), (1, 2, 2, 24)]


def test_configuration_comes_along(model, config):
    assert model.config == config
    assert model.classes[0] == "sky"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), r"got float64 \[4, 5\]\. Repeat a grey .* Scale floats"),
        (np.zeros((4, 5, 3), np.float32), r"Scale floats in 0\.\.1: \(image \* 255\)"),
        (np.zeros((3, 4, 5), np.uint8), r"channels last: image\.transpose\(1, 2, 0\)"),
        (np.zeros((4, 5, 4), np.uint8), r"Drop the alpha channel: image\[\.\.\., :3\]"),
        (np.zeros((4, 5, 3), np.int64), r"values to 0\.\.255: image\.astype"),
        (np.zeros((0, 5, 3), np.uint8), r"got uint8 \[0, 5, 3\]"),
        (None, "an image must be a file's path"),
    ],
)
def test_what_is_no_image_is_refused_with_advice(model, array, message):
    with pytest.raises(ValueError, match=message):
        model.predict(array)


def test_a_broken_file_is_named(model, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png"):
        model.predict(tmp_path / "text.png")


def test_lists_and_batches_give_what_single_images_give(model):
    # One size for the network, and another.
    images = [photograph(), photograph(46, 70), photograph(70, 45), photograph(44, 71)]
    results = model.predict(images, batch_size=2)
    for image, result in zip(images, results, strict=True):
        alone = model.predict(image)
        np.testing.assert_array_equal(result.image, image)
        np.testing.assert_array_equal(result.probabilities, alone.probabilities)
        # Scores of a batch are equal to rounding: a tie may be broken otherwise.
        assert (result.labels != alone.labels).mean() < 1e-3
    batch = np.stack([images[0], images[0][::-1]])
    for result, image in zip(model.predict(batch), batch, strict=True):
        assert (result.labels != model.predict(image).labels).mean() < 1e-3
    assert model.predict([]) == []


def test_large_images_go_by_blocks_of_rows(model, monkeypatch):
    image = photograph(300, 200)
    expected = model.predict(image)
    monkeypatch.setattr("segnext_jax.predict.predictor._MAX_MAP_BYTES", 100)
    assert model.is_large(image.shape[:2])
    found = model.predict(image)
    assert (found.labels != expected.labels).mean() < 1e-3
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_what_is_too_large_to_be_seen_whole_is_refused(folder):
    native = segnext_jax.load(folder, overrides=["evaluation.scale=0,0"])
    with pytest.raises(ValueError, match=r"at most 16,777,216 .*got 4096 x 8192"):
        native.input_sizes((4096, 8192))
    slide = ["evaluation.scale=0,0", "evaluation.mode=slide"]
    windows = segnext_jax.load(folder, overrides=slide)
    assert windows.input_sizes((4096, 8192)) == ((4096, 8192),)
    assert windows.is_large((4096, 8192)) and not windows.is_large((4096, 4096))


def test_impossible_overrides_are_refused(folder):
    with pytest.raises(ValueError, match="tiny cannot run.*\n.*mode must be one of"):
        segnext_jax.load(folder, overrides=["evaluation.mode=tiles"])


def test_results_can_be_saved_and_shown(model, tmp_path):
    image = photograph()
    result = model.predict(image)
    result.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), result.labels)
    result.save(tmp_path / "a.jpg", "overlay")
    with Image.open(tmp_path / "a.jpg") as overlay:
        assert overlay.size == (70, 45)
    result.save(tmp_path / "a.npz", "probabilities")
    with np.load(tmp_path / "a.npz") as found:
        assert found["probabilities"].shape == (45, 70, 11)
    with pytest.raises(ValueError, match=r"overlay must end in \.jpg: got a\.png"):
        result.save(tmp_path / "a.png", "overlay")
    with pytest.raises(ValueError, match="kind must be one of labels"):
        result.save(tmp_path / "a.png", "gif")
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        np.testing.assert_array_equal(np.asarray(shown), result.side_by_side())


def test_encoder_alone_is_refused(config, tmp_path):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    del variables["params"]["decode_head"]
    path = tmp_path / "encoder"
    model_folder.save_model(path, variables, config_lib.to_json(config))
    with pytest.raises(ValueError, match="a whole network is needed.*decode_head"):
        segnext_jax.load(path)


def test_weights_of_other_sizes_are_refused(config, folder, tmp_path):
    variables = reading.read(folder).variables
    other = config_lib.from_json(config_lib.to_json(config))
    other.data.name = "cityscapes"
    path = tmp_path / "other"
    model_folder.save_model(path, variables, config_lib.to_json(other))
    with pytest.raises(ValueError, match=r"conv_seg.* is \[11\], needed \[19\]"):
        segnext_jax.load(path)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the network to load must exist"):
        segnext_jax.load(tmp_path / "nothing")


def test_a_predictor_is_pickled_by_its_address(folder, model, monkeypatch):
    monkeypatch.chdir(folder.parent)
    model = segnext_jax.load(folder.name, overrides=["evaluation.flip=true"])
    packed = pickle.dumps(model)
    assert len(packed) < 500
    monkeypatch.chdir("/")
    again = pickle.loads(packed)
    assert again.config == model.config and again.address == model.address
    image = photograph()
    np.testing.assert_array_equal(
        again.predict(image).probabilities, model.predict(image).probabilities
    )
    # A prediction goes along, and asks for its probabilities where it has come to.
    result = pickle.loads(pickle.dumps(model.predict(image)))
    np.testing.assert_array_equal(result.labels, model.predict(image).labels)


def test_a_predictor_of_arrays_cannot_be_pickled(model):
    made = type(model)(model.variables, model.config)
    with pytest.raises(ValueError, match="was made from arrays. Take one that"):
        pickle.dumps(made)
