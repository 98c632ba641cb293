"""Training crops as the network sees them."""

import cv2
import numpy as np
import pytest

from segnext_jax import __main__ as program
from segnext_jax.cli import command


@pytest.fixture
def browse(shapes_dir, tmp_path):
    def draw(*overrides, count=3) -> np.ndarray:
        output = tmp_path / "sheet.png"
        fields = (f"data.data_dir={shapes_dir}", "data.crop_size=64,64", *overrides)
        options = ["--config=shapes_tiny", f"--output={output}", f"--count={count}"]
        program.dispatch(["browse", *options, *(f"--config.{f}" for f in fields)])
        return cv2.imread(str(output))

    return draw


def test_crops_are_those_of_the_seed_and_distorted_on_the_device(browse):
    plain = browse("data.photometric=false", "evaluation.batch_size=8")
    # Four cells in a row of two panels of 224 pixels.
    assert plain.shape[1] == 3 * (2 * 224 + 24)
    again = browse("data.photometric=false", "evaluation.batch_size=8")
    np.testing.assert_array_equal(plain, again)
    distorted = browse("data.photometric=true", "evaluation.batch_size=8")
    other = browse("data.photometric=false", "evaluation.batch_size=8", "seed=1")
    photo = np.s_[22 : 22 + 224, 8 : 8 + 224]
    assert plain[photo].std() > 10
    for sheet in (distorted, other):
        assert np.abs(sheet[photo].astype(int) - plain[photo]).mean() > 2
    # The legend below tells nothing of colours that are distorted.
    np.testing.assert_array_equal(distorted[-20:], plain[-20:])


def test_grey_images_are_seen_grey(browse):
    sheet = browse(
        "data.grey_probability=1", "evaluation.batch_size=8", count=1
    ).astype(int)
    photo = sheet[22 : 22 + 224, 8 : 8 + 224]
    assert np.ptp(photo, axis=-1).max() <= 1 and photo.std() > 10


def test_what_has_no_masks_is_refused(capsys, shapes_dir):
    arguments = ["browse", "--config=imagenet_tiny"]
    assert command.run(program.dispatch, arguments) == 1
    assert "whose crops have masks: got one of class" in capsys.readouterr().err
