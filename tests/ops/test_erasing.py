"""Random erasing: boxes by the law of timm, noise inside, the image outside."""

import jax
import numpy as np
import pytest

from segnext_jax.ops.erasing import draw_boxes, erase, inside

SIZE = (60, 90)


def boxes(count=8000, probability=1.0, size=SIZE) -> np.ndarray:
    key = jax.random.key(0)
    draw = jax.jit(draw_boxes, static_argnums=(1, 2, 3))
    return np.asarray(draw(key, count, size, probability))


def test_pixels_inside_are_those_between_the_edges():
    drawn = boxes(count=20)
    found = jax.jit(inside, static_argnums=1)(drawn, SIZE)
    expected = np.zeros((20, *SIZE), bool)
    for mask, (top, bottom, left, right) in zip(expected, drawn, strict=True):
        mask[top:bottom, left:right] = True
    np.testing.assert_array_equal(found, expected)


def test_boxes_have_timms_areas_ratios_and_places():
    top, bottom, left, right = boxes().T
    heights, widths = bottom - top, right - left
    assert top.min() >= 0 and left.min() >= 0
    assert bottom.max() <= SIZE[0] and right.max() <= SIZE[1]
    assert heights.max() < SIZE[0] and widths.max() < SIZE[1]
    areas = heights * widths / (SIZE[0] * SIZE[1])
    assert 0.017 < areas.min() and areas.max() < 0.345
    # The law of the first try, as timm's own loop in NumPy gives it.
    rng = np.random.default_rng(0)
    expected = np.array([timms_box(rng) for _ in range(8000)])
    error = 5 * (2 / 8000) ** 0.5
    for ours, theirs in (
        (areas, expected[:, 0] * expected[:, 1] / (SIZE[0] * SIZE[1])),
        (np.log(heights / widths), np.log(expected[:, 0] / expected[:, 1])),
        (top, expected[:, 2]),
        (left, expected[:, 3]),
    ):
        assert ours.mean() == pytest.approx(theirs.mean(), abs=error * theirs.std())
        assert ours.std() == pytest.approx(theirs.std(), rel=0.05)


def timms_box(rng) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * SIZE[0] * SIZE[1]
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if width < SIZE[1] and height < SIZE[0]:
            top = rng.integers(0, SIZE[0] - height + 1)
            left = rng.integers(0, SIZE[1] - width + 1)
            return height, width, top, left
    raise AssertionError("ten tries do not fail here")


def test_share_of_images_is_the_probability():
    is_erased = boxes(probability=0.25)[:, 1] > 0
    assert is_erased.mean() == pytest.approx(0.25, abs=5 * (0.1875 / 8000) ** 0.5)


def test_image_that_no_box_fits_stays():
    """One row: a box would have to have none."""
    assert not boxes(count=50, size=(1, 40)).any()


def test_noise_replaces_the_box_alone():
    images = np.full((400, 20, 30, 3), 7, np.float32)
    erase_of = jax.jit(erase, static_argnums=2)
    erased = np.asarray(erase_of(images, jax.random.key(3), 1.0))
    is_noise = erased != 7
    assert (is_noise == is_noise[..., :1]).all()
    shares = is_noise[..., 0].mean(axis=(1, 2))
    assert 0 < shares.min() and shares.max() < 0.36
    noise = erased[is_noise]
    assert noise.mean() == pytest.approx(0, abs=5 / noise.size**0.5)
    assert noise.std() == pytest.approx(1, abs=5 / (2 * noise.size) ** 0.5)
    again = erase_of(images, jax.random.key(3), 1.0)
    np.testing.assert_array_equal(erased, again)
    np.testing.assert_array_equal(erase_of(images, jax.random.key(3), 0.0), images)
