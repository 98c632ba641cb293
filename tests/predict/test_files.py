import io

import cv2
import numpy as np
import pytest

from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import files

RNG = np.random.default_rng(0)
SPEC = DatasetSpec(
    "tiny", ("road", "sky", "tree"), ((90, 0, 90), (0, 90, 250), (0, 99, 0))
)
IMAGE = np.full((90, 130, 3), 128, np.uint8)
LABELS = np.repeat(RNG.integers(0, 3, (9, 13), np.uint8), 10, 0).repeat(10, 1)
PROBABILITIES = RNG.dirichlet((1, 1, 1), (90, 130)).astype(np.float32)


def written(kind, block_heights=(90,), **options):
    file = io.BytesIO()
    target = files.begin(kind, file, IMAGE, SPEC, files.FileOptions(**options))
    top = 0
    for height in block_heights:
        rows = slice(top, top + height)
        target.write(LABELS[rows], PROBABILITIES[rows])
        top += height
    target.close()
    return file.getvalue()


@pytest.mark.parametrize("kind", files.SUFFIXES)
@pytest.mark.parametrize("max_picture_side", [4096, 50])
def test_blocks_of_any_height_make_the_same_picture(kind, max_picture_side):
    whole = written(kind, max_picture_side=max_picture_side)
    blocks = written(kind, (1, 31, 32, 26), max_picture_side=max_picture_side)
    if kind == "probabilities":
        whole, blocks = (
            np.load(io.BytesIO(f))["probabilities"] for f in (whole, blocks)
        )
        np.testing.assert_array_equal(whole, blocks)
    elif kind == "labels":
        whole, blocks = (
            cv2.imdecode(np.frombuffer(f, np.uint8), -1) for f in (whole, blocks)
        )
        np.testing.assert_array_equal(whole, blocks)
    else:
        assert whole == blocks


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-4), ("float32", 0)])
def test_probabilities_are_numpy_files(dtype, tolerance):
    with np.load(io.BytesIO(written("probabilities", probability_type=dtype))) as found:
        assert found["classes"].tolist() == list(SPEC.classes)
        assert found["probabilities"].dtype == dtype
        # Half of the last of float16's 11 bits, below 1.
        np.testing.assert_allclose(
            found["probabilities"], PROBABILITIES, rtol=0, atol=tolerance
        )


def test_overlay_weighs_colours_and_is_reduced_by_a_whole_factor():
    encoded = written("overlay", max_picture_side=50, opacity=0.25)
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (30, 44, 3)  # 1/3, rounded up.
    expected = 0.75 * 128 + 0.25 * np.array(SPEC.colours)[LABELS[::3, ::3]]
    # JPEG blurs the borders, which are many; 12 levels are what lies between colours.
    assert np.median(np.abs(picture - expected)) <= 4


def test_impossible_options_are_refused():
    for options in (
        {"opacity": 1.5},
        {"max_picture_side": 0},
        {"max_picture_side": 40_000},
    ):
        with pytest.raises(ValueError, match="must"):
            files.FileOptions(**options)
    with pytest.raises(ValueError, match="float16 or float32: got 'int8'"):
        files.FileOptions(probability_type="int8")
