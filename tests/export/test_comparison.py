"""An exported file that computes something else is refused."""

import numpy as np
import pytest

from segnext_jax.export.comparison import Comparison, draw_images
from segnext_jax.export.program import Signature


def logits_of(images):
    """Stand for a network: scores at 1/8 of the size that depend on the images."""
    return images[:, ::8, ::8].astype(np.float32) / 100 - 1


def labels_of(images):
    return images[..., 0] // 32


@pytest.mark.parametrize(
    "size, batch, shapes",
    [
        ((32, 64), 3, [(3, 32, 64, 3)]),
        ((32, 64), None, [(1, 32, 64, 3), (2, 32, 64, 3)]),
        # 350x97: the crop size rounded up.
        (None, 4, [(4, 352, 128, 3), (4, 96, 160, 3)]),
        (None, None, [(1, 352, 128, 3), (2, 96, 160, 3)]),
    ],
)
def test_open_dimensions_are_tried_with_two_values(size, batch, shapes):
    images = draw_images(Signature(size, batch), crop_size=(350, 97))
    comparison = Comparison(labels_of, images, is_label=True)
    assert [images.shape for images in comparison.images] == shapes
    difference = comparison.difference(labels_of)
    assert difference == 0
    described = comparison.describe(difference)
    assert described == {
        "share_of_other_labels": 0.0,
        "compared_on": [list(shape) for shape in shapes],
    }
    assert "x".join(map(str, shapes[-1][:3])) in comparison.tell(difference)


def test_difference_is_the_largest_of_scores_or_the_share_of_labels():
    images = draw_images(Signature((64, 64), 1), (64, 64))
    logits = Comparison(logits_of, images, is_label=False)

    def shifted(images):
        scores = logits_of(images)
        scores[0, 0, 0, 0] += 0.003
        return scores

    assert logits.difference(shifted) == pytest.approx(0.003, rel=1e-4)
    labels = Comparison(labels_of, images, is_label=True)

    def one_other(images):
        ids = labels_of(images)
        ids[0, 5, 7] += 1
        return ids

    assert labels.difference(one_other) == 1 / 64**2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: logits_of(images)[:, :, ::-1],
        lambda images: logits_of(images) * np.float32(1.05),
        lambda images: logits_of(images) * np.float32(np.nan),
    ],
)
def test_another_program_is_refused(wrong):
    images = draw_images(Signature((32, 64), 1), (64, 64))
    comparison = Comparison(logits_of, images, is_label=False)
    with pytest.raises(ValueError, match=r"what the network does.*\(1, 32, 64, 3\)"):
        comparison.difference(wrong)
