"""A large image block by block gives what it gives at once."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from segnext_jax.evaluation.batch import Batch
from segnext_jax.evaluation.inference import Inference
from segnext_jax.evaluation.row_blocks import row_blocks
from segnext_jax.pipeline.fitting import Fitting

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(8, 8, 3, 5)).astype(np.float32)
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 55.0)
noise = RNG.integers(0, 256, (40, 30, 3), np.uint8)
IMAGE = cv2.resize(noise, (141, 215), interpolation=cv2.INTER_CUBIC)


@jax.jit
def logits_fn(images):
    """Scores at 1/8 of the size that depend on place, and on the window's mean."""
    logits = lax.conv_general_dilated(
        images, WEIGHTS, (8, 8), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return logits + images.mean((1, 2), keepdims=True)[..., :1]


# 16 bytes: tiles of 32 pixels, the smallest.
@pytest.mark.parametrize("tile_bytes", [16, 8 * 2**20], ids=["32px", "one_tile"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": (64, 96), "stride": (40, 64)},
        {"window": (64, 96), "stride": (64, 50), "use_flip": True},
        {"window": (400, 500), "stride": (100, 100)},
    ],
    ids=["whole", "slide", "slide_flip", "window_larger_than_image"],
)
@pytest.mark.parametrize(
    "fitting",
    [
        Fitting(),
        Fitting(scale=(200, 120), ratios=(0.5, 1.25), multiple=32),
        Fitting(ratios=(1.0, 0.7), multiple=48, alignment="pad"),
    ],
    ids=["native", "scales", "pad"],
)
def test_blocks_equal_inference_of_the_whole(fitting, options, tile_bytes):
    inference = Inference(
        logits_fn=logits_fn, mean=MEAN, std=STD, tile_bytes=tile_bytes, **options
    )
    batch = Batch(
        images=tuple(image[None] for image in fitting.images(IMAGE)),
        fitted_sizes=tuple((sizes,) for sizes in fitting.sizes(IMAGE.shape[:2])),
        image_sizes=(IMAGE.shape[:2],),
        first_row=0,
    )
    ((labels, probabilities),) = inference.probability_maps(batch)
    sizes = fitting.sizes(IMAGE.shape[:2])
    blocks = list(
        row_blocks(inference, fitting.images(IMAGE), sizes, IMAGE.shape[:2], True)
    )
    assert (len(blocks) > 1) == (tile_bytes == 16)
    found = np.concatenate([block.probabilities for block in blocks])
    # float32: windows of a row are the same programs, sums are in the same order.
    np.testing.assert_allclose(found, probabilities, rtol=1e-5, atol=1e-6)
    found = np.concatenate([block.labels for block in blocks])
    assert (found != labels).mean() < 1e-4
    assert len(np.unique(labels)) > 2


def test_only_the_windows_of_a_few_rows_are_kept():
    calls = []

    def counted(images):
        calls.append(images.shape)
        return logits_fn(images)

    inference = Inference(
        logits_fn=counted, mean=MEAN, std=STD, window=(32, 141), stride=(32, 141),
        tile_bytes=16,
    )  # fmt: skip
    sizes = Fitting().sizes(IMAGE.shape[:2])
    blocks = row_blocks(inference, [IMAGE], sizes, IMAGE.shape[:2])
    counts = [len(calls) for _ in blocks]
    # Each window once, and not before rows that it covers are due.
    assert counts == [1, 2, 3, 4, 5, 7, 7]
    assert set(calls) == {(1, 32, 141, 3)}


def test_labels_alone_have_no_probabilities():
    inference = Inference(
        logits_fn=lambda x: jnp.zeros((1, 4, 4, 3)), mean=MEAN, std=STD
    )
    sizes = Fitting().sizes(IMAGE.shape[:2])
    for block in row_blocks(inference, [IMAGE], sizes, IMAGE.shape[:2]):
        assert block.probabilities is None and (block.labels == 0).all()
