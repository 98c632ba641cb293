"""Mixing against plain NumPy statements of timm's, and the law of the draws."""

import jax
import numpy as np
import pytest

from segnext_jax.ops.mixing import (
    Mixing,
    cutmix_boxes,
    draw_mixing,
    mix_images,
    mix_labels,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 8, 3)).astype(np.uint8)
LABELS = np.array([3, 0, 2, 2, 1, 3], np.int32)
# Two groups of three: mixup, then cutmix of rows 1..2 and columns 0..4.
SHARES = np.array([0.3, 1 - 2 * 5 / 40], np.float32)
MIXING = Mixing(
    share=SHARES,
    is_cutmix=np.array([False, True]),
    boxes=np.array([[0, 5, 0, 8], [1, 3, 0, 5]], np.int32),
)
mix = jax.jit(mix_images)


def test_images_are_timms_mixture():
    expected = IMAGES.astype(np.float32)
    for i, j in ((0, 2), (1, 1), (2, 0)):
        blended = IMAGES[i] * SHARES[0] + IMAGES[j] * (1 - SHARES[0])
        expected[i] = np.rint(blended.astype(np.float32))
    for i, j in ((3, 5), (4, 4), (5, 3)):
        expected[i, 1:3, 0:5] = IMAGES[j, 1:3, 0:5]
    mixed = np.asarray(mix(IMAGES, MIXING))
    # A product that ends in one half may be rounded to either side.
    assert np.abs(mixed[:3] - expected[:3]).max() <= 1
    assert (mixed[:3] != expected[:3]).mean() < 0.01
    np.testing.assert_array_equal(mixed[3:], expected[3:])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_timms_mixture(smoothing):
    num_classes = 4
    others = LABELS[[2, 1, 0, 5, 4, 3]]
    off = smoothing / num_classes
    expected = np.empty((6, num_classes))
    for i in range(6):
        share = SHARES[i // 3]
        for c in range(num_classes):
            own = 1 - smoothing + off if LABELS[i] == c else off
            other = 1 - smoothing + off if others[i] == c else off
            expected[i, c] = own * share + other * (1 - share)
    found = jax.jit(mix_labels, static_argnums=(2, 3))(
        LABELS, MIXING, num_classes, smoothing
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(np.sum(found, axis=1), 1, rtol=1e-6)


def test_boxes_are_timms():
    size, count = (23, 38), 200
    shares = RNG.random(count, np.float32)
    centres = RNG.integers(0, size, (count, 2)).astype(np.int32)
    expected = np.empty((count, 4), int)
    for i, (share, (y, x)) in enumerate(zip(shares, centres, strict=True)):
        ratio = np.sqrt(1 - share)
        height, width = int(size[0] * ratio), int(size[1] * ratio)
        expected[i] = (
            *np.clip((y - height // 2, y + height // 2), 0, size[0]),
            *np.clip((x - width // 2, x + width // 2), 0, size[1]),
        )
    found = jax.jit(cutmix_boxes, static_argnums=2)(shares, centres, size)
    np.testing.assert_array_equal(found, expected)


def drawn(mixup_alpha, cutmix_alpha) -> Mixing:
    return draw_mixing(
        jax.random.key(1),
        20_000,
        (24, 32),
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        switch_probability=0.25,
    )


def test_draws_follow_the_beta_law_and_the_switch():
    mixing = jax.device_get(drawn(0.8, 1.0))
    # Five standard deviations.
    assert mixing.is_cutmix.mean() == pytest.approx(0.25, abs=5 * 0.0031)
    shares = mixing.share[~mixing.is_cutmix]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    variance = 1 / (4 * 2.6)
    assert shares.mean() == pytest.approx(0.5, abs=5 * (variance / 15_000) ** 0.5)
    assert shares.var() == pytest.approx(variance, rel=0.05)


def test_share_of_cutmix_is_that_of_the_pixels_left():
    mixing = jax.device_get(drawn(0.0, 1.0))
    assert mixing.is_cutmix.all()
    top, bottom, left, right = mixing.boxes.T
    expected = 1 - (bottom - top) * (right - left) / (24 * 32)
    np.testing.assert_allclose(mixing.share, expected, rtol=1e-6)
    assert 0 <= mixing.share.min() < 0.2 and 0.99 < mixing.share.max() <= 1


def test_without_either_nothing_is_mixed():
    mixing = jax.device_get(drawn(0.0, 0.0))
    assert not mixing.is_cutmix.any() and (mixing.share == 1).all()
    mixed = mix(IMAGES, jax.tree.map(lambda array: array[:2], mixing))
    np.testing.assert_array_equal(mixed, IMAGES)
