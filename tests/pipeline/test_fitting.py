"""Fitting against the recorded sizes and pixels, and mmsegmentation's padding."""

import cv2
import numpy as np
import pytest

from segnext_jax.evaluation.batch import FittedSize
from segnext_jax.pipeline.fitting import Fitting

IMAGE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8), (70, 45)
)


def test_official_rule_gives_the_recorded_image(reference):
    recorded = np.load(reference / "aug.npz")
    image = np.ascontiguousarray(recorded["image"][..., ::-1])
    (fitted,) = Fitting((140, 60), multiple=32).images(image)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    normalised = (fitted - np.float32(mean)) / np.float32(std)
    wanted = recorded["test/img"].transpose(1, 2, 0)
    np.testing.assert_allclose(normalised, wanted, rtol=0, atol=1e-6)


def test_multiples_are_the_recorded_ones(reference):
    for width, height, *wanted in np.load(reference / "aug.npz")["multiple/cases"]:
        (sizes,) = Fitting(multiple=32).sizes((int(height), int(width)))
        assert sizes.outer == sizes.inner == (wanted[1], wanted[0])


def test_ratios_cut_the_scale_to_integers():
    fitting = Fitting((2048, 512), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), 32)
    sizes = [fitted.outer for fitted in fitting.sizes((512, 683))]
    shorts = [256, 384, 512, 640, 768, 896]
    longs = [-(-int(683 * s / 512 + 0.5) // 32) * 32 for s in shorts]
    assert sizes == list(zip(shorts, longs, strict=True))
    # (105, 45) of (140, 60): 0.75 * 45 is 33.75, but 0.75 * 60 is 45.
    (fitted,) = Fitting((140, 61), (0.75,)).sizes((61, 61))
    assert fitted.outer == (45, 45)


def test_ratios_without_a_scale_are_of_the_image_itself():
    sizes = Fitting(None, (0.5, 1.0, 1.5)).sizes((45, 71))
    assert [s.outer for s in sizes] == [(23, 36), (45, 71), (68, 107)]


def test_padding_keeps_the_image_and_adds_below_and_right():
    fitting = Fitting((140, 60), (1.0, 0.5), 32, "pad")
    first, second = fitting.sizes((45, 70))
    assert first == FittedSize((60, 93), (64, 96))
    assert second == FittedSize((30, 47), (32, 64))
    image = fitting.images(IMAGE)[0]
    assert image.shape == (64, 96, 3)
    np.testing.assert_array_equal(image[:60, :93], cv2.resize(IMAGE, (93, 60)))
    assert not image[60:].any() and not image[:, 93:].any()


def test_image_at_its_own_size_is_taken_as_it_is():
    (image,) = Fitting().images(IMAGE)
    assert image is IMAGE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 0}, "multiple must be at least 1: got 0"),
        ({"ratios": ()}, "at least one ratio"),
        ({"alignment": "crop"}, "one of resize, pad: got 'crop'"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Fitting(**options)
