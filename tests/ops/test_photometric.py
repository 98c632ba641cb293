"""Each distortion against the official one's recorded outputs, and the draws."""

import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import photometric


@pytest.fixture(scope="module")
def recorded(reference):
    return np.load(reference / "aug.npz")


OPERATIONS = {
    "brightness": photometric.adjust_brightness,
    "contrast": photometric.adjust_contrast,
    "saturation": photometric.adjust_saturation,
    "hue": photometric.adjust_hue,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_recorded_output_within_one_grey_level(recorded, name):
    image = jnp.asarray(recorded["image"][..., ::-1], jnp.float32)  # BGR to RGB
    cases = [key for key in recorded.files if key.startswith(f"pmd/{name}_")]
    assert cases
    operation = jax.jit(OPERATIONS[name])
    for case in cases:
        amount = re.search(r"_(-?[\d.]+)$", case).group(1)
        amount = jnp.asarray(float(amount), jnp.int32 if name == "hue" else None)
        output = np.asarray(operation(image, amount))
        difference = np.abs(output - recorded[case][..., ::-1])
        assert difference.max() <= 1, case
        # The other columns do not pass OpenCV's vector loop.
        assert (difference[:, :64] > 0).mean() < 0.01, case


distort = jax.jit(photometric.distort)


def test_hsv_round_trip_of_grey_is_exact():
    grey = jnp.broadcast_to(jnp.arange(256.0)[:, None, None], (256, 2, 3))
    turned = jax.jit(photometric.adjust_hue)(grey, jnp.asarray(7))
    np.testing.assert_array_equal(turned, grey)


def test_images_are_distorted_by_their_own_draws_and_stay_8_bit():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1, 9, 13, 3)).astype(np.uint8)
    images = np.repeat(one, 64, axis=0)
    output = np.asarray(distort(images, jax.random.key(0)))
    assert output.dtype == np.float32
    assert (output == np.round(output)).all()
    assert output.min() >= 0 and output.max() <= 255
    distinct = {image.tobytes() for image in output}
    # Nothing is drawn for all four with probability 1/16, so a few stay as they are.
    assert 48 <= len(distinct) <= 64
    unchanged = (output == one).all((1, 2, 3)).mean()
    assert 0 < unchanged < 0.2
    again = distort(images, jax.random.key(0))
    np.testing.assert_array_equal(output, again)


def test_contrast_is_changed_once():
    """Grey passes saturation and hue: 100 - 32 to 100 + 32, times 0.5 to 1.5."""
    grey = np.full((4000, 1, 1, 3), 100, np.uint8)
    output = np.asarray(distort(grey, jax.random.key(1)))
    assert 34 <= output.min() < 50 and 160 < output.max() <= 198


def test_hue_is_turned_by_minus_18_to_17_as_numpy_draws_it():
    red = np.broadcast_to(np.uint8([170, 0, 0]), (4000, 1, 1, 3))
    output = np.asarray(distort(red, jax.random.key(1)))[:, 0, 0]
    # Where nothing was cut off, and rounding moves the hue by less than a half.
    largest, smallest = output.max(1), output.min(1)
    kept = output[(largest >= 130) & (largest < 255) & (smallest == 0)]
    hues = 30 * (kept[:, 1] - kept[:, 2]) / kept[:, 0]
    assert set(np.round(hues)) == set(range(-18, 18))


def test_normalize_is_minus_mean_over_std():
    images = jnp.asarray([[[[0, 128, 255]]]], jnp.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    output = photometric.normalize(images, mean, std)
    expected = (np.array([0, 128, 255]) - mean) / np.array(std)
    np.testing.assert_allclose(output[0, 0, 0], expected, rtol=1e-6)


def test_grey_is_opencvs_luma_and_comes_at_its_probability():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1, 60, 70, 3)).astype(np.uint8)
    images = np.repeat(one, 200, axis=0).astype(np.float32)
    drop = jax.jit(photometric.drop_colour, static_argnums=2)
    output = np.asarray(drop(images, jax.random.key(0), 0.3))
    luma = cv2.cvtColor(one[0], cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=-1)
    is_grey = (output == luma).all((1, 2, 3))
    is_same = (output == one).all((1, 2, 3))
    assert (is_grey ^ is_same).all()
    assert 40 <= is_grey.sum() <= 80  # 60 with a standard deviation of 6.5.


def test_padding_becomes_the_mean_as_in_the_official_pipeline(recorded):
    num_padded = 0
    clear = jax.jit(photometric.clear_padding)
    for seed in range(8):
        official = np.moveaxis(recorded[f"train/seed{seed}/img"], 0, -1)
        is_padding = (official == 0).all(-1)
        height, width = (~is_padding).any(1).sum(), (~is_padding).any(0).sum()
        noise = np.random.default_rng(seed).normal(size=official.shape)
        cleared = clear(np.float32(noise)[None], np.int32([[height, width]]))
        np.testing.assert_array_equal((np.asarray(cleared[0]) == 0).all(-1), is_padding)
        num_padded += is_padding.any()
    assert num_padded == 2
