"""The best class against NumPy's argmax."""

import jax
import numpy as np
import pytest

from segnext_jax.ops.best_class import best_class


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("num_classes", [1, 2, 25, 26, 51, 150, 171])
def test_labels_are_those_of_argmax(num_classes, axis):
    rng = np.random.default_rng(num_classes)
    # Few values: many classes are equally good, and the first one counts.
    scores = rng.integers(0, 9, (num_classes, 6, 7)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    scores[:, 0, 0] = -np.inf
    maps = np.moveaxis(scores, 0, axis)
    find = jax.jit(lambda maps: best_class(maps, lambda x: x, (6, 7), axis))
    labels = find(maps)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, scores.argmax(axis=0))


def test_scores_are_made_of_the_map_of_each_class():
    maps = np.random.default_rng(0).normal(size=(30, 5, 4)).astype(np.float32)

    def difference(of_class):
        return of_class[1:] - of_class[:-1]

    expected = np.diff(maps, axis=1).argmax(axis=0)
    labels = best_class(jax.numpy.asarray(maps), difference, (4, 4))
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("place", [0, 24, 25, 29])
def test_a_nan_is_no_class(place):
    scores = np.zeros((30, 3), np.float32)
    scores[place, 1] = np.nan
    labels = best_class(jax.numpy.asarray(scores), lambda x: x, (3,))
    np.testing.assert_array_equal(labels, [0, 30, 0])
