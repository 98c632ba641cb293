"""Windows against the recorded ones; axis matrices against plain statements."""

import dataclasses
import json

import numpy as np
import pytest

from segnext_jax.evaluation.resampling import Axis, cut, stack, window_starts

WHOLE = Axis(image=50, inner=64, outer=64, window=64, starts=(0,), small=8)
SLIDE = Axis(image=77, inner=90, outer=96, window=40, starts=(0, 27, 54, 56), small=5)
AXES = {
    "whole": WHOLE,
    "slide": SLIDE,
    "mirrored": dataclasses.replace(SLIDE, is_mirrored=True),
    "native": Axis(image=33, inner=33, outer=33, window=33, starts=(0,), small=5),
}


def test_windows_are_the_recorded_ones(reference):
    cases = json.loads(str(np.load(reference / "aug.npz")["slide/windows"]))
    assert len(cases) > 4
    for height, width, window, stride, boxes in cases:
        tops = window_starts(height, window, stride)
        lefts = window_starts(width, window, stride)
        given = [
            [top, min(top + window, height), left, min(left + window, width)]
            for top in tops
            for left in lefts
        ]
        assert given == boxes


def interpolate(values, new):
    """Half-pixel centres, clamped at the edges."""
    old = len(values)
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.interp(position, np.arange(old), values)


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_matrix_does_the_steps_one_after_the_other(axis):
    scores = np.random.default_rng(0).standard_normal(len(axis.starts) * axis.small)
    total, count = np.zeros(axis.outer), np.zeros(axis.outer)
    for number, start in enumerate(axis.starts):
        part = scores[number * axis.small : (number + 1) * axis.small]
        total[start : start + axis.window] += interpolate(part, axis.window)
        count[start : start + axis.window] += 1
    wanted = interpolate((total / count)[: axis.inner], axis.image)
    wanted = wanted[::-1] if axis.is_mirrored else wanted
    np.testing.assert_allclose(axis.matrix() @ scores, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("tile_size", [1, 16, 77, 100])
@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_tiles_hold_the_matrix(axis, tile_size):
    tiles = cut(axis, tile_size)
    num_needed = tiles.indices.shape[1]
    assert num_needed & (num_needed - 1) == 0
    scores = np.random.default_rng(0).standard_normal(len(axis.starts) * axis.small)
    pieces = [
        weights @ scores[indices]
        for indices, weights in zip(tiles.indices, tiles.weights, strict=True)
    ]
    joined = np.concatenate(pieces)
    np.testing.assert_allclose(
        joined[: axis.image], axis.matrix() @ scores, rtol=0, atol=1e-13
    )
    assert not joined[axis.image :].any()


def test_a_tile_needs_few_columns_however_large_the_image():
    axis = Axis(image=4096, inner=4096, outer=4096, window=4096, starts=(0,), small=512)
    assert cut(axis, 128).indices.shape == (32, 32)


def test_rows_of_a_batch_are_filled_up_with_nothing():
    tiles = [cut(WHOLE, 16), cut(SLIDE, 16)]
    joined = stack(tiles, range(2))
    assert joined.indices.shape == (2, 5, 16)
    np.testing.assert_array_equal(joined.weights[1], tiles[1].weights)
    count, _, needed = tiles[0].weights.shape
    np.testing.assert_array_equal(
        joined.weights[0, :count, :, :needed], tiles[0].weights
    )
    assert joined.weights[0].sum() == pytest.approx(WHOLE.image)
    one = stack(tiles, range(1, 2))
    np.testing.assert_array_equal(one.weights[0], joined.weights[1])
