"""Windows against their distribution, pixels against Pillow, the central crop."""

import numpy as np
import pytest
from PIL import Image

from segnext_jax.pipeline.classification.resized_crop import (
    RandomResizedCrop,
    central_crop,
    draw_window,
)

AREAS, ASPECTS = (0.08, 1.0), (3 / 4, 4 / 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (83, 121, 3)).astype(np.uint8)


class Recorded(np.random.Generator):
    """Keeps what it has drawn."""

    def uniform(self, *arguments):
        return self._keep(super().uniform(*arguments))

    def integers(self, *arguments):
        return self._keep(super().integers(*arguments))

    def random(self):
        return self._keep(super().random())

    def _keep(self, value):
        self.drawn.append(value)
        return value


class Replayed(np.random.Generator):
    """Returns given numbers."""

    def __init__(self, values):
        super().__init__(np.random.PCG64())
        self._values = iter(values)

    def uniform(self, *_):
        return next(self._values)

    def integers(self, *_):
        return next(self._values)


def crop(**options) -> RandomResizedCrop:
    return RandomResizedCrop(
        **{
            "crop_size": (32, 48),
            "area_range": AREAS,
            "aspect_range": ASPECTS,
            "flip_probability": 0.5,
            "augment": None,
            "colour_jitter": 0.0,
            **options,
        }
    )


def test_windows_lie_inside_and_have_the_drawn_areas_and_ratios():
    rng, size = np.random.default_rng(0), (400, 500)
    windows = [draw_window(size, AREAS, ASPECTS, rng) for _ in range(4000)]
    for window in windows:
        assert 0 <= window.top <= window.top + window.height <= size[0]
        assert 0 <= window.left <= window.left + window.width <= size[1]
    areas = np.array([w.height * w.width for w in windows]) / (size[0] * size[1])
    ratios = np.log([w.width / w.height for w in windows])
    assert 0.079 < areas.min() < 0.09 and areas.max() <= 1
    assert np.abs(ratios).max() < np.log(4 / 3) + 0.01
    # Small windows always fit: there the law is that of the first try.
    small = areas < 0.4
    assert areas[small].mean() == pytest.approx(0.24, abs=5 * 0.0924 / 1300**0.5)
    assert ratios[small].mean() == pytest.approx(0, abs=5 * 0.166 / 1300**0.5)
    assert ratios[small].std() == pytest.approx(np.log(16 / 9) / 12**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 10), (43, 0, 13, 10)), ((10, 100), (0, 43, 10, 13))],
)
def test_long_image_gives_its_middle_when_nothing_fits(size, expected):
    """timm: the largest part of ratio 3/4 or 4/3, in the middle."""
    window = draw_window(size, (0.9, 1.0), ASPECTS, np.random.default_rng(0))
    assert (window.top, window.left, window.height, window.width) == expected


def test_crop_is_pillows_resize_of_the_part():
    found = {True: 0, False: 0}
    rng = Recorded(np.random.PCG64(5))
    for _ in range(8):
        rng.drawn = []
        result = crop()(PIXELS, rng)
        *_, top, left, kind, chance = rng.drawn
        window = draw_window(PIXELS.shape[:2], AREAS, ASPECTS, Replayed(rng.drawn[:-2]))
        assert (window.top, window.left) == (top, left)
        part = PIXELS[top : top + window.height, left : left + window.width]
        resample = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[kind]
        expected = np.asarray(
            Image.fromarray(np.ascontiguousarray(part)).resize((48, 32), resample)
        )
        is_flipped = chance < 0.5
        found[is_flipped] += 1
        np.testing.assert_array_equal(
            result, expected[:, ::-1] if is_flipped else expected
        )
    assert all(found.values())


def test_central_crop_of_a_square_has_torchvisions_sizes():
    """Resize(248) makes 361x248 of 121x83; CenterCrop(224) begins at row 12."""
    result = central_crop(PIXELS, (224, 224), 0.9)
    whole = Image.fromarray(PIXELS).resize((361, 248), Image.Resampling.BICUBIC)
    # (361 - 224) / 2 = 68.5, rounded to the even number.
    expected = np.asarray(whole)[12 : 12 + 224, 68 : 68 + 224]
    np.testing.assert_array_equal(result, expected)


def test_central_crop_of_another_shape_holds_the_whole_shorter_side():
    result = central_crop(PIXELS, (20, 40), 1.0)
    whole = Image.fromarray(PIXELS).resize((40, 27), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(result, np.asarray(whole)[4:24])
    tall = central_crop(np.swapaxes(PIXELS, 0, 1), (40, 20), 1.0)
    # Pillow resizes rows first: the transposed is the same up to rounding.
    difference = np.abs(np.swapaxes(tall, 0, 1).astype(int) - result)
    assert difference.max() <= 2
