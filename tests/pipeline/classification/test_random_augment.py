"""Each operation against Pillow and NumPy, levels against timm's, the draws."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from segnext_jax.pipeline.classification import random_augment
from segnext_jax.pipeline.classification.random_augment import (
    OPERATIONS,
    Draw,
    RandAugment,
    jitter_colours,
)

# Neither square nor even; every grey level occurs.
PIXELS = np.random.default_rng(0).integers(0, 256, (37, 50, 3)).astype(np.uint8)
PIXELS[:16, :16, 1] = np.arange(256).reshape(16, 16)
IMAGE = Image.fromarray(PIXELS)
FILL = (128, 127, 7)
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def apply(name, magnitude=0.0, sign=1, resample=BILINEAR) -> np.ndarray:
    draw = Draw(magnitude / 10, sign, resample, FILL)
    return np.asarray(OPERATIONS[name](IMAGE, draw))


def moved(matrix, resample) -> np.ndarray:
    affine = Image.Transform.AFFINE
    return np.asarray(
        IMAGE.transform(IMAGE.size, affine, matrix, resample=resample, fillcolor=FILL)
    )


def test_operations_are_those_of_timm_inc1():
    """timm's _RAND_INCREASING_TRANSFORMS, in our names."""
    assert set(OPERATIONS) == {
        *("auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize"),
        *("solarize_add", "colour", "contrast", "brightness", "sharpness"),
        *("shear_x", "shear_y", "translate_x", "translate_y"),
    }


def test_operations_without_level_are_pillows():
    for name in ("auto_contrast", "equalize"):
        expected = getattr(ImageOps, name.replace("_", ""))(IMAGE)
        for magnitude in (0, 10):
            np.testing.assert_array_equal(apply(name, magnitude), np.asarray(expected))
    np.testing.assert_array_equal(apply("invert", 3), 255 - PIXELS)


@pytest.mark.parametrize(
    ("magnitude", "num_bits"), [(0, 4), (2.4, 4), (2.6, 3), (5, 2), (9, 1), (10, 0)]
)
def test_posterize_keeps_fewer_bits_with_the_level(magnitude, num_bits):
    expected = PIXELS.astype(int) >> (8 - num_bits) << (8 - num_bits)
    np.testing.assert_array_equal(apply("posterize", magnitude), expected)


@pytest.mark.parametrize(
    ("magnitude", "threshold", "added"), [(0, 256, 0), (5, 128, 55), (9, 26, 99)]
)
def test_solarize_inverts_or_brightens_one_side_of_a_threshold(
    magnitude, threshold, added
):
    inverted = np.where(PIXELS.astype(int) < threshold, PIXELS, 255 - PIXELS)
    np.testing.assert_array_equal(apply("solarize", magnitude), inverted)
    brighter = np.minimum(255, PIXELS.astype(int) + added)
    expected = np.where(PIXELS < 128, brighter, PIXELS)
    np.testing.assert_array_equal(apply("solarize_add", magnitude), expected)


@pytest.mark.parametrize("name", ["colour", "contrast", "brightness", "sharpness"])
@pytest.mark.parametrize(
    ("magnitude", "sign", "factor"), [(9, 1, 1.81), (9, -1, 0.19), (0, 1, 1.0)]
)
def test_enhancements_have_pillows_factor(name, magnitude, sign, factor):
    kind = getattr(ImageEnhance, {"colour": "Color"}.get(name, name.title()))
    expected = np.asarray(kind(IMAGE).enhance(factor)).astype(int)
    # The factor is computed in another order: a rounding to the other side.
    assert np.abs(apply(name, magnitude, sign).astype(int) - expected).max() <= 1
    if not magnitude:
        np.testing.assert_array_equal(apply(name, magnitude, sign), PIXELS)


def test_brightness_is_a_product():
    product = PIXELS.astype(float) * 1.45
    expected = np.minimum(255, np.floor(product))
    difference = np.abs(apply("brightness", 5).astype(float) - expected)
    assert difference.max() <= 1  # Pillow multiplies in float32.


@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("sign", [1, -1])
def test_moves_are_pillows_with_timms_ranges(resample, sign):
    shear = sign * 0.3 * 0.9
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, sign * 0.45 * 0.9 * 50, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * 0.45 * 0.9 * 37),
    }
    for name, matrix in matrices.items():
        expected = moved(matrix, resample)
        np.testing.assert_array_equal(apply(name, 9, sign, resample), expected)
    turned = IMAGE.rotate(sign * 27.0, resample=resample, fillcolor=FILL)
    np.testing.assert_array_equal(apply("rotate", 9, sign, resample), turned)


def test_translation_by_whole_pixels_is_a_shift_filled_with_the_colour():
    magnitude = 10 / 0.45 * 10 / 50  # Ten columns of fifty.
    shifted = apply("translate_x", magnitude)
    np.testing.assert_array_equal(shifted[:, :40], PIXELS[:, 10:])
    assert (shifted[:, 40:] == FILL).all()


AUGMENT = RandAugment(2, 0.5, 9.0, 0.5, FILL)


def test_augmentation_is_a_function_of_image_and_generator():
    results = [
        np.asarray(AUGMENT(IMAGE, np.random.default_rng(seed))) for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_operations_are_drawn_as_timm_draws_them(monkeypatch):
    """Twice with replacement, each half of the time; m ~ N(9, 0.5) cut to 10."""
    seen = []

    def note(name):
        def operation(image, draw):
            seen.append((name, draw))
            return image

        return operation

    operations = {name: note(name) for name in OPERATIONS}
    monkeypatch.setattr(random_augment, "OPERATIONS", operations)
    rng, num_images = np.random.default_rng(0), 6000
    for _ in range(num_images):
        AUGMENT(IMAGE, rng)
    # Five standard deviations of each count or mean.
    assert len(seen) == pytest.approx(num_images, abs=5 * (num_images / 2) ** 0.5)
    counts = np.unique([name for name, _ in seen], return_counts=True)[1]
    assert len(counts) == 15
    np.testing.assert_allclose(counts, num_images / 15, atol=5 * 20)
    levels = np.array([draw.level for _, draw in seen])
    assert levels.max() == 1.0
    assert np.median(levels) == pytest.approx(0.9, abs=5 * 0.05 * 1.25 / 6000**0.5)
    # P(m > 10) = P(Z > 2) = 0.02275.
    assert (levels == 1.0).mean() == pytest.approx(0.02275, abs=5 * 0.0019)
    for values in (
        [draw.sign == 1 for _, draw in seen],
        [draw.resample == BILINEAR for _, draw in seen],
    ):
        assert np.mean(values) == pytest.approx(0.5, abs=5 * 0.0065)


def test_jitter_is_a_product_of_three_enhancements():
    """In one of the six orders; the factors lie in the range."""

    class Fixed(np.random.Generator):
        def uniform(self, low, high, size):
            assert (low, high) == (pytest.approx(0.6), 1.4)
            return np.array([0.7, 1.3, 1.1])[:size]

        def permutation(self, count):
            return np.array([2, 0, 1])

    jittered = jitter_colours(IMAGE, 0.4, Fixed(np.random.PCG64()))
    expected = ImageEnhance.Color(IMAGE).enhance(1.1)
    expected = ImageEnhance.Brightness(expected).enhance(0.7)
    expected = ImageEnhance.Contrast(expected).enhance(1.3)
    np.testing.assert_array_equal(np.asarray(jittered), np.asarray(expected))
