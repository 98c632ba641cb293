import json

import cv2
import numpy as np
import pytest

from segnext_jax.pipeline.geometry import (
    CropWindow,
    draw_crop,
    draw_scale,
    nearest_indices,
    network_size,
    rescaled_size,
    size_of_multiple,
    source_part,
)


class Legacy(np.random.Generator):
    """NumPy's old global generator, which the official transforms draw from."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64())
        self.legacy = np.random.RandomState(seed)
        self.num_draws = 0

    def random(self):
        self.num_draws += 1
        return self.legacy.random_sample()

    def integers(self, low, high):
        self.num_draws += 1
        return self.legacy.randint(low, high)


class Recorded(np.random.Generator):
    """Draws that were recorded, checked for their kind and bounds."""

    def __init__(self, draws) -> None:
        super().__init__(np.random.PCG64())
        self.draws = list(draws)

    def random(self):
        kind, _, value = self.draws.pop(0)
        assert kind in ("random_sample", "rand")
        return value

    def integers(self, low, high):
        kind, bounds, value = self.draws.pop(0)
        assert (kind, bounds, low) == ("randint", [0, high], 0)
        return int(value)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),
        ((512, 683), (512, 2048), (512, 683)),  # The scale has no orientation,
        ((683, 512), (2048, 512), (683, 512)),  # nor has the image.
        ((512, 683), (2528, 632), (632, 843)),
        ((100, 1000), (2048, 512), (205, 2048)),  # Here the long side is the bound.
        ((3, 5), (7, 7), (4, 7)),
        ((1, 3000), (30, 30), (1, 30)),  # The official formula gives no row at all.
    ],
)
def test_rescaled_size_keeps_the_ratio_within_the_scale(size, scale, expected):
    assert rescaled_size(size, scale) == expected


def test_rescaled_size_is_the_official_one(reference):
    cases = np.load(reference / "aug.npz")["rescale/cases"]
    assert len(cases) == 70
    for width, height, long, short, new_width, new_height in cases.tolist():
        assert rescaled_size((height, width), (long, short)) == (new_height, new_width)


def test_sizes_are_rounded_up_to_multiples():
    assert size_of_multiple((31, 64), 32) == (32, 64)
    assert size_of_multiple((512, 683), 32) == (512, 704)
    assert size_of_multiple((45, 70), 1) == (45, 70)
    assert network_size((45, 70), (140, 60), 32) == (64, 96)
    assert network_size((45, 70), (140, 60)) == (60, 93)
    assert network_size((45, 70), None, 32) == (64, 96)
    assert network_size((45, 70), None) == (45, 70)


def test_size_of_multiple_is_the_official_one(reference):
    for width, height, new_width, new_height in np.load(reference / "aug.npz")[
        "multiple/cases"
    ].tolist():
        assert size_of_multiple((height, width), 32) == (new_height, new_width)


def test_scale_is_one_uniform_draw_cut_to_integers():
    rng = Recorded([("random_sample", [], 0.999), ("random_sample", [], 0.0)])
    assert draw_scale((2048, 512), (0.5, 2.0), rng) == (4092, 1023)
    assert draw_scale((2048, 512), (0.5, 2.0), rng) == (1024, 256)


def test_nearest_indices_are_opencvs():
    rng = np.random.default_rng(0)
    num_off_the_exact_floor = 0
    for _ in range(1000):
        source, target = rng.integers(1, 2100, 2).tolist()
        row = np.arange(source, dtype=np.float32)[None]
        resized = cv2.resize(row, (target, 1), interpolation=cv2.INTER_NEAREST)
        indices = nearest_indices(source, target)
        np.testing.assert_array_equal(indices, resized[0])
        exact = np.arange(target) * source // target
        num_off_the_exact_floor += not np.array_equal(indices, exact)
    # Why the formula must be OpenCV's own.
    assert num_off_the_exact_floor > 10


BLOCKY = np.full((60, 80), 3, np.uint8)
BLOCKY[40:, 50:] = 1
BLOCKY[:, :4] = 255


def crop(labels, rng, *, resized=None, size=(20, 24), share=0.75):
    resized = resized or labels.shape
    window, inside = draw_crop(
        labels, resized, size, max_class_share=share, ignore_label=255, rng=rng
    )
    whole = cv2.resize(labels, resized[::-1], interpolation=cv2.INTER_NEAREST)
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    np.testing.assert_array_equal(inside, whole[rows, columns])
    return window


def test_crop_windows_are_the_official_ones(reference):
    data = np.load(reference / "aug.npz")
    for seed, box, num_boxes in zip(
        data["crop/seeds"], data["crop/bbox"], data["crop/draws"], strict=True
    ):
        rng = Legacy(seed)
        window = crop(data["crop/blocky"], rng)
        assert (
            window.top,
            window.top + window.height,
            window.left,
            window.left + window.width,
        ) == tuple(box)
        assert rng.num_draws == 2 * num_boxes


def test_training_windows_are_the_official_ones(reference):
    """Replay scale, window and flip of the recorded training pipeline."""
    data = np.load(reference / "aug.npz")
    for seed in range(8):
        rng = Recorded(json.loads(str(data[f"train/seed{seed}/draws"])))
        scale = draw_scale((280, 70), (0.5, 2.0), rng)
        resized = rescaled_size((45, 70), scale)
        window = crop(data["label"], rng, resized=resized, size=(64, 64))
        assert window.height == min(64, resized[0])
        assert window.width == min(64, resized[1])
        # Next comes the flip.
        assert rng.draws[0][0] == "rand"


def test_a_window_shows_more_than_one_class_where_ten_tries_find_one():
    shares, failures = [], 0
    for seed in range(300):
        rng = Legacy(seed)
        window = crop(BLOCKY, rng)
        inside = BLOCKY[
            window.top : window.top + window.height,
            window.left : window.left + window.width,
        ]
        counts = np.bincount(inside.ravel(), minlength=256)[:255]
        if rng.num_draws == 22:
            failures += 1
        else:
            assert np.count_nonzero(counts) > 1
            shares.append(counts.max() / counts.sum())
    assert max(shares) < 0.75
    assert failures > 50 and len(shares) > 150


def test_a_window_of_one_class_is_taken_after_ten_tries_or_without_bound():
    labels = np.full((30, 40), 5, np.uint8)
    rng = Legacy(0)
    window = crop(labels, rng)
    assert rng.num_draws == 22
    assert (window.height, window.width) == (20, 24)
    rng = Legacy(0)
    crop(labels, rng, share=1.0)
    assert rng.num_draws == 2
    rng = Legacy(0)
    crop(np.full((30, 40), 255, np.uint8), rng)
    assert rng.num_draws == 22


def test_the_window_is_clipped_where_the_resized_image_is_smaller():
    assert crop(BLOCKY, Legacy(0), resized=(15, 20)) == CropWindow(0, 0, 15, 20)
    window = crop(BLOCKY, Legacy(0), resized=(15, 100))
    assert (window.top, window.height, window.width) == (0, 15, 24)
    assert 0 <= window.left <= 76


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.9])
def test_a_crop_is_refused_by_the_official_rule(share):
    """Quick answers from single counts must be those of the whole histogram."""
    rng = np.random.default_rng(1)
    answers = []
    for _ in range(400):
        num_ids = int(rng.integers(1, 12))
        ids = rng.choice(20, num_ids, replace=False)
        ids[rng.random(num_ids) < 0.1] = 255
        shares = rng.dirichlet(np.full(num_ids, 0.5))
        labels = rng.choice(ids, (16, 25), p=shares).astype(np.uint8)
        classes, counts = np.unique(labels, return_counts=True)
        counts = counts[classes != 255]
        is_taken = len(counts) > 1 and counts.max() / counts.sum() < share
        draws = Legacy(0)
        crop(labels, draws, size=labels.shape, share=share)
        assert draws.num_draws == (2 if is_taken else 22)
        answers.append(is_taken)
    assert 20 < sum(answers) < 380


def test_a_class_at_exactly_its_bound_is_refused():
    labels = np.repeat(np.array([[0], [0], [0], [1]], np.uint8), 8, axis=1)
    for share, num_draws in ((0.75, 22), (0.7501, 2)):
        rng = Legacy(0)
        crop(labels, rng, size=(4, 8), share=share)
        assert rng.num_draws == num_draws
    # The one whose bound is met may be any of those that are not counted.
    labels = np.arange(10, dtype=np.uint8)[:, None].repeat(8, axis=1)
    for share, num_draws in ((0.1, 22), (0.1001, 2)):
        rng = Legacy(0)
        crop(labels, rng, size=(10, 8), share=share)
        assert rng.num_draws == num_draws


def test_a_part_begins_at_whole_pixels_and_reaches_beyond_the_window():
    rng = np.random.default_rng(0)
    num_parts = 0
    for _ in range(2000):
        source = int(rng.integers(1, 3000))
        target = max(1, int(source * rng.uniform(0.2, 5)))
        length = int(rng.integers(1, target + 1))
        start = int(rng.integers(0, target - length + 1))
        part = source_part(start, length, source, target)
        step = source / target
        begin = start - part.inside.start
        assert abs(begin * step - part.source.start) <= 1 / 32
        assert part.inside.stop - part.inside.start == length
        # OpenCV's size of the resized part.
        resized = round((part.source.stop - part.source.start) / step)
        assert part.inside.stop <= resized
        # Positions of the first and last pixel, and both neighbours of each.
        first, last = (start + 0.5) * step - 0.5, (start + length - 0.5) * step - 0.5
        assert part.source.start in (0, min(part.source.start, int(first)))
        assert part.source.stop in (source, max(part.source.stop, int(last) + 2))
        num_parts += part.source.start > 0
    assert num_parts > 1000


def test_every_window_can_be_drawn():
    labels = np.tile(np.array([[0, 1], [1, 0]], np.uint8), (3, 4))
    windows = {
        (w.top, w.left)
        for w in (crop(labels, Legacy(seed), size=(4, 6)) for seed in range(100))
    }
    assert windows == {(top, left) for top in range(3) for left in range(3)}
