"""What is refused before a run begins: classes and masks that teach nothing."""

import cv2
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.images.decode import encode_label
from segnext_jax.ops import sharding
from segnext_jax.training.tasks.segmentation import Segmentation


@pytest.fixture
def start(tmp_path, tiny_network):
    """Return a function: write a folder of such classes and ids, begin a training."""

    def run(names, ids, *overrides):
        for split in ("train", "val"):
            for kind in ("images", "masks"):
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
            for number in range(8):
                photo = np.full((32, 48, 3), number, np.uint8)
                cv2.imwrite(str(tmp_path / f"images/{split}/{number}.png"), photo)
                labels = np.resize(np.array(ids, np.uint8), (32, 48))
                path = tmp_path / f"masks/{split}/{number}.png"
                path.write_bytes(encode_label(labels))
        (tmp_path / "classes.txt").write_text("\n".join(names))
        options = ("data.name=folder", f"data.folder={tmp_path}", "batch_size=8")
        options += ("evaluation.batch_size=8", "data.crop_size=32,32")
        config = config_lib.load(None, (*tiny_network, *options, *overrides))
        task = Segmentation(config, sharding.make_mesh())
        task.make_loader().close()

    return run


def test_masks_in_which_all_is_ignored_are_refused(start):
    start(["a", "b"], [0, 1, 255])
    with pytest.raises(ValueError, match="in 8 masks of split 'train', .* is 255"):
        start(["a", "b"], [255])
    with pytest.raises(ValueError, match="masks must have labelled pixels"):
        start(["a", "b"], [0], "data.zero_is_ignore=true")


def test_one_class_is_refused(start):
    with pytest.raises(ValueError, match="at least two classes apart: got only 'a'"):
        start(["a"], [0, 255])


def test_names_that_zero_is_ignore_would_shift_are_refused(start):
    with pytest.raises(ValueError, match="Remove the line 'Null' from classes.txt"):
        start(["Null", "a", "b"], [0, 1, 2], "data.zero_is_ignore=true")
