import json

import cv2
import numpy as np
import pytest

from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline.geometry import CropWindow, rescaled_size, window_labels
from segnext_jax.pipeline.transforms import (
    MEAN_COLOUR,
    RandomScaleCropFlip,
    decode_pair,
    place_in_crop,
    resize_for_network,
    resize_window,
    rotate_window,
)

from .test_geometry import Recorded

RNG = np.random.default_rng(0)
IMAGE = cv2.GaussianBlur(RNG.integers(0, 256, (45, 70, 3), np.uint8), (0, 0), 1.5)
LABELS = cv2.resize(
    RNG.integers(0, 12, (9, 14), np.uint8), (70, 45), interpolation=cv2.INTER_NEAREST
)
LABELS[:4] = 255


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def resize_then_crop(image, labels, resized, window, crop_size, is_flipped, fill):
    """Do what the official pipeline does, step by step."""
    size = resized[::-1]
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    part = (
        slice(window.top, window.top + window.height),
        slice(window.left, window.left + window.width),
    )
    image, labels = image[part], labels[part]
    if is_flipped:
        image, labels = image[:, ::-1], labels[:, ::-1]
    below, right = crop_size[0] - window.height, crop_size[1] - window.width
    image = np.stack(
        [
            np.pad(channel, ((0, below), (0, right)), constant_values=value)
            for channel, value in zip(np.moveaxis(image, -1, 0), fill, strict=True)
        ],
        axis=-1,
    )
    return image, np.pad(labels, ((0, below), (0, right)), constant_values=255)


WINDOWS = [
    ((45, 70), CropWindow(5, 11, 24, 40), (24, 40)),  # No change of size.
    ((61, 96), CropWindow(20, 30, 41, 64), (41, 64)),  # Up to the last row.
    ((90, 140), CropWindow(0, 76, 64, 64), (64, 64)),  # Up to the last column.
    ((33, 51), CropWindow(0, 0, 33, 51), (64, 57)),  # Smaller than the crop.
    ((23, 36), CropWindow(0, 4, 23, 32), (40, 32)),  # Smaller in height only.
]


@pytest.mark.parametrize("is_flipped", [False, True])
@pytest.mark.parametrize(("resized", "window", "crop_size"), WINDOWS)
def test_a_part_alone_equals_resize_crop_flip_pad(
    resized, window, crop_size, is_flipped
):
    expected_image, expected_labels = resize_then_crop(
        IMAGE, LABELS, resized, window, crop_size, is_flipped, MEAN_COLOUR
    )
    image = np.zeros((*crop_size, 3), np.uint8)
    part = resize_window(IMAGE, resized, window)
    place_in_crop(part, image, is_flipped, MEAN_COLOUR)
    labels = np.zeros(crop_size, np.uint8)
    part = window_labels(LABELS, resized, window)
    place_in_crop(part, labels, is_flipped, 255)
    np.testing.assert_array_equal(labels, expected_labels)
    difference = np.abs(image.astype(int) - expected_image)
    # Two roundings of one exact value, and interpolation weights of 5 to 11 bits.
    assert difference.mean() < 0.25 and difference.max() <= 2
    assert image[window.height :].shape[0] == crop_size[0] - window.height
    np.testing.assert_array_equal(
        image[window.height :],
        np.broadcast_to(MEAN_COLOUR, image[window.height :].shape),
    )


def test_pixels_are_within_a_grey_level_of_the_official_resize(reference):
    data = np.load(reference / "aug.npz")
    image = np.ascontiguousarray(data["image"][..., ::-1])
    for size in ("70x45", "96x61", "51x33", "140x90"):
        width, height = map(int, size.split("x"))
        window = CropWindow(0, 0, height, width)
        crop = resize_window(image, (height, width), window)
        official = data[f"resize/img_{size}"][..., ::-1]
        assert np.abs(crop.astype(int) - official).mean() < 0.5
        labels = window_labels(data["label"], (height, width), window)
        np.testing.assert_array_equal(labels, data[f"resize/seg_{size}"])


def test_the_official_training_labels_come_out_of_the_recorded_draws(reference):
    data = np.load(reference / "aug.npz")
    image = np.ascontiguousarray(data["image"][..., ::-1])
    transform = RandomScaleCropFlip(
        num_classes=255,
        ignore_label=255,
        crop_size=(64, 64),
        base_scale=(280, 70),
        scale_range=(0.5, 2.0),
        max_class_share=0.75,
        flip_probability=0.5,
    )
    example = {
        "image": png(image),
        "label": encode_label(data["label"]),
        "image_id": "a",
    }
    for seed in range(8):
        rng = Recorded(json.loads(str(data[f"train/seed{seed}/draws"])))
        crop = transform(example, rng)
        np.testing.assert_array_equal(crop["label"], data[f"train/seed{seed}/seg"])
        # Padding is zero once the official pipeline has normalised.
        is_padding = (data[f"train/seed{seed}/img"] == 0).all(0)
        assert (crop["image"][is_padding] == MEAN_COLOUR).all()
        # The next draw is the first one of the photometric distortion.
        assert rng.draws[0][:2] == ["randint", [2.0]]


def transform(**options) -> RandomScaleCropFlip:
    return RandomScaleCropFlip(
        **{
            "num_classes": 12,
            "ignore_label": 255,
            "crop_size": (41, 57),
            "base_scale": (80, 50),
            "scale_range": (0.3, 3.0),
            "max_class_share": 0.75,
            "flip_probability": 0.5,
            **options,
        }
    )


def test_labels_are_never_mixed():
    example = {"image": png(IMAGE), "label": encode_label(LABELS), "image_id": "a"}
    known = set(np.unique(LABELS)) | {255}
    for seed in range(60):
        crop = transform()(example, np.random.default_rng(seed))
        assert crop["image"].shape == (41, 57, 3) and crop["label"].shape == (41, 57)
        assert crop["image"].dtype == crop["label"].dtype == np.uint8
        assert set(np.unique(crop["label"])) <= known


def test_image_and_label_stay_aligned():
    # The red channel is the label, in flat blocks: they must agree off the borders.
    image = np.repeat((LABELS * np.uint8(20))[..., None], 3, axis=2)
    image[LABELS == 255] = 255
    example = {"image": png(image), "label": encode_label(LABELS), "image_id": "a"}
    for seed in range(30):
        crop = transform(scale_range=(1.5, 3.0))(example, np.random.default_rng(seed))
        label = crop["label"]
        shown = np.where(label == 255, 255, label * 20)
        is_padding = (crop["image"] == MEAN_COLOUR).all(-1)
        agrees = (crop["image"][..., 0] == shown) | is_padding
        is_inside = (
            cv2.erode(label, np.ones((7, 7))) == cv2.dilate(label, np.ones((7, 7)))
        ) & ~cv2.dilate(is_padding.astype(np.uint8), np.ones((7, 7))).astype(bool)
        # Beyond the crop's border there may be another class.
        is_inside[:3] = is_inside[-3:] = False
        is_inside[:, :3] = is_inside[:, -3:] = False
        assert is_inside.sum() > 50
        assert agrees[is_inside].all()


def test_flips_come_at_their_probability():
    example = {"image": png(IMAGE), "label": encode_label(LABELS), "image_id": "a"}
    fixed = {"scale_range": (1.0, 1.0), "base_scale": (70, 45), "crop_size": (45, 70)}
    never = transform(**fixed, flip_probability=0.0)
    always = transform(**fixed, flip_probability=1.0)
    half = transform(**fixed, flip_probability=0.5)
    np.testing.assert_array_equal(
        never(example, np.random.default_rng(0))["label"], LABELS
    )
    np.testing.assert_array_equal(
        always(example, np.random.default_rng(0))["image"], IMAGE[:, ::-1]
    )
    flipped = [
        np.array_equal(half(example, np.random.default_rng(s))["image"], IMAGE[:, ::-1])
        for s in range(200)
    ]
    assert 80 <= sum(flipped) <= 120  # 100 with a standard deviation of 7.


WHOLE = CropWindow(0, 0, 45, 70)


def turn(pixels, degrees, window=WHOLE, resized=(45, 70), is_label=False):
    return rotate_window(
        pixels,
        resized,
        window,
        degrees,
        interpolation=cv2.INTER_NEAREST if is_label else cv2.INTER_LINEAR,
        fill=255 if is_label else MEAN_COLOUR,
    )


def test_a_turn_by_nothing_is_the_window():
    np.testing.assert_array_equal(turn(IMAGE, 0.0), IMAGE)
    np.testing.assert_array_equal(turn(LABELS, 0.0, is_label=True), LABELS)
    window, resized = CropWindow(20, 30, 41, 64), (61, 96)
    turned = turn(IMAGE, 0.0, window, resized)
    expected = resize_window(IMAGE, resized, window)
    assert np.abs(turned.astype(int) - expected).mean() < 0.3


def test_half_a_turn_mirrors_both_sides_and_a_quarter_is_clockwise():
    np.testing.assert_array_equal(turn(IMAGE, 180.0), IMAGE[::-1, ::-1])
    np.testing.assert_array_equal(
        turn(LABELS, 180.0, is_label=True), LABELS[::-1, ::-1]
    )
    square = CropWindow(3, 5, 30, 30)
    inside = LABELS[3:33, 5:35]
    np.testing.assert_array_equal(
        turn(LABELS, 90.0, square, is_label=True), np.rot90(inside, -1)
    )


def test_a_turned_window_shows_what_lies_beyond_it_and_fill_where_nothing_does():
    inner = CropWindow(15, 25, 15, 20)  # Its circle lies inside of the image.
    assert (turn(np.zeros_like(LABELS), 45.0, inner, is_label=True) == 0).all()
    turned = turn(np.zeros_like(LABELS), 45.0, is_label=True)
    assert (turned[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert set(np.unique(turned)) == {0, 255}
    image = turn(np.zeros_like(IMAGE), 45.0)
    np.testing.assert_array_equal(image[0, 0], MEAN_COLOUR)
    labels = {
        tuple(np.unique(turn(LABELS, float(d), is_label=True))) for d in range(0, 90, 7)
    }
    assert all(set(ids) <= set(np.unique(LABELS)) | {255} for ids in labels)


def test_rotation_comes_at_its_probability_and_keeps_the_pair_aligned():
    labels = RNG.integers(0, 12, (3, 4), np.uint8).repeat(15, 0).repeat(18, 1)[:, :70]
    grey = np.repeat((labels * np.uint8(20))[..., None], 3, axis=2)
    example = {"image": png(grey), "label": encode_label(labels), "image_id": "a"}
    fixed = {"scale_range": (1.0, 1.0), "base_scale": (70, 45), "crop_size": (45, 70)}
    fixed |= {"flip_probability": 0.0}
    plain = transform(**fixed)
    turning = transform(**fixed, rotation_probability=0.5, max_rotation=30.0)
    num_turned = 0
    for seed in range(100):
        crop = turning(example, np.random.default_rng(seed))
        if np.array_equal(
            crop["label"], plain(example, np.random.default_rng(seed))["label"]
        ):
            continue
        num_turned += 1
        label = crop["label"]
        shown = label * np.uint8(20)
        kernel = np.ones((7, 7))
        is_inside = cv2.erode(label, kernel) == cv2.dilate(label, kernel)
        is_inside &= label != 255
        is_inside[[0, 1, -2, -1]] = is_inside[:, [0, 1, -2, -1]] = False
        assert is_inside.sum() > 200
        assert (crop["image"][..., 0] == shown)[is_inside].all()
    assert 35 <= num_turned <= 65  # 50 with a standard deviation of 5.


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (45, 70)])
def test_images_of_any_shape_give_full_crops(size):
    image = RNG.integers(0, 256, (*size, 3), np.uint8)
    labels = RNG.integers(0, 12, size, np.uint8)
    example = {"image": png(image), "label": encode_label(labels), "image_id": "a"}
    for seed in range(20):
        crop = transform()(example, np.random.default_rng(seed))
        assert crop["image"].shape == (41, 57, 3)
        assert (crop["label"] != 255).any()


def test_a_label_out_of_range_is_refused_by_name():
    labels = LABELS.copy()
    labels[20, 3] = 37
    example = {"image": png(IMAGE), "label": encode_label(labels), "image_id": "b/7"}
    with pytest.raises(ValueError, match=r"^b/7: label ids .* found 37 on 1 pixels"):
        transform()(example, np.random.default_rng(0))


def test_a_pair_of_two_sizes_is_refused_by_name():
    example = {"image": png(IMAGE), "label": encode_label(LABELS[1:]), "image_id": "c"}
    with pytest.raises(ValueError, match=r"^c: .* \(45, 70\) and \(44, 70\)"):
        decode_pair(example)


def test_the_network_input_is_two_bilinear_passes():
    first = rescaled_size((45, 70), (140, 60))
    expected = cv2.resize(IMAGE, first[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_for_network(IMAGE, (140, 60)), expected)
    expected = cv2.resize(expected, (96, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_for_network(IMAGE, (140, 60), 32), expected)
    assert resize_for_network(IMAGE, None) is IMAGE
    assert resize_for_network(IMAGE, None, 32).shape == (64, 96, 3)


def test_the_network_input_is_the_official_one(reference):
    data = np.load(reference / "aug.npz")
    image = np.ascontiguousarray(data["image"][..., ::-1])
    ours = resize_for_network(image, (140, 60), 32)
    mean = np.array([123.675, 116.28, 103.53])
    std = np.array([58.395, 57.12, 57.375])
    # The official one is normalised already; float32 rounding is far below a level.
    levels = np.moveaxis(data["test/img"], 0, -1) * std + mean
    np.testing.assert_array_equal(ours, np.rint(levels))
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
