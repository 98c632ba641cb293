"""Masks never get interpolated values: the set of ids does not grow on the way."""

import cv2
import numpy as np
import pytest

from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline.geometry import CropWindow, window_labels
from segnext_jax.pipeline.transforms import RandomScaleCropFlip


@pytest.mark.parametrize("seed", range(10))
def test_training_crops_hold_no_new_id(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        # Portrait, panorama, smaller than the crop in one or both sides.
        height, width = rng.integers(1, 90, 2)
        ids = rng.choice(250, size=rng.integers(1, 6), replace=False)
        labels = rng.choice(ids, (height, width)).astype(np.uint8)
        image = np.zeros((height, width, 3), np.uint8)
        crop_size = tuple(rng.integers(1, 70, 2).tolist())
        transform = RandomScaleCropFlip(
            num_classes=250,
            ignore_label=255,
            crop_size=crop_size,
            base_scale=tuple(rng.integers(8, 120, 2).tolist()),
            scale_range=(0.5, 2.0),
            max_class_share=0.75,
            flip_probability=0.5,
        )
        example = {
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "label": labels if rng.random() < 0.5 else encode_label(labels),
            "image_id": "x",
        }
        crop = transform(example, rng)["label"]
        assert crop.shape == crop_size
        assert set(np.unique(crop)) <= {*np.unique(labels), 255}


@pytest.mark.parametrize("seed", range(10))
def test_windows_of_resized_labels_are_those_of_opencv(seed):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        size = rng.integers(1, 90, 2)
        labels = rng.integers(0, 256, size).astype(np.uint8)
        resized = tuple(rng.integers(1, 120, 2).tolist())
        top, left = (int(rng.integers(0, side)) for side in resized)
        height = int(rng.integers(1, resized[0] - top + 1))
        width = int(rng.integers(1, resized[1] - left + 1))
        inside = window_labels(labels, resized, CropWindow(top, left, height, width))
        assert set(np.unique(inside)) <= set(np.unique(labels))
        whole = cv2.resize(labels, resized[::-1], interpolation=cv2.INTER_NEAREST)
        expected = whole[top : top + height, left : left + width]
        np.testing.assert_array_equal(inside, expected)
