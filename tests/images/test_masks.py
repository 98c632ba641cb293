import io

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.datasets import get_spec
from segnext_jax.images.masks import MaskReader, colours_to_ids

RNG = np.random.default_rng(0)
COLOURS = ((0, 0, 0), (128, 64, 128), (255, 255, 255))
MASK_COLOURS = ((0, 0, 0), (255, 0, 1), (1, 0, 255), (3, 2, 1))


def png(array: np.ndarray) -> bytes:
    if array.ndim == 3:
        array = array[..., ::-1]
    return cv2.imencode(".png", array)[1].tobytes()


def test_ids_are_train_ids_unless_told_otherwise():
    mask = RNG.integers(0, 256, (5, 9), np.uint8)
    np.testing.assert_array_equal(MaskReader(3).read(png(mask), "m"), mask)


def test_zero_is_ignored_and_all_others_move_down():
    mask = np.arange(256, dtype=np.uint8)[None]
    labels = MaskReader(150, zero_is_ignore=True).read(png(mask), "m")
    assert labels[0, 0] == 255 and labels[0, 255] == 255
    np.testing.assert_array_equal(labels[0, 1:255], np.arange(254))


def test_an_id_map_names_each_id():
    reader = MaskReader(2, id_map=((7, 0), (200, 1), (0, 255)))
    mask = np.array([[7, 200, 0, 255]], np.uint8)
    np.testing.assert_array_equal(reader.read(png(mask), "m"), [[0, 1, 255, 255]])
    mask[0, 1] = 201
    with pytest.raises(
        ValueError, match=r"^m: each id .* stand in id_map: \[201\] do not"
    ):
        reader.read(png(mask), "m")


def test_colours_are_looked_up_in_every_form_of_file():
    reader = MaskReader(2, "colours", COLOURS[:2], ignore_colours=COLOURS[2:])
    ids = RNG.integers(0, 3, (33, 47))
    expected = np.array([0, 1, 255], np.uint8)[ids]
    rgb = np.array(COLOURS, np.uint8)[ids]
    alpha = RNG.integers(0, 256, (33, 47, 1), np.uint8)
    palette = Image.fromarray(rgb).quantize(8)
    for picture, file_format, options in (
        (Image.fromarray(rgb), "PNG", {}),
        (Image.fromarray(rgb), "BMP", {}),
        (Image.fromarray(rgb), "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(rgb), "WEBP", {"lossless": True}),
        (Image.fromarray(np.dstack([rgb, alpha])), "PNG", {}),
        (Image.fromarray(np.dstack([rgb, alpha])), "TIFF", {}),
        (palette, "PNG", {}),
        (palette, "TIFF", {}),
        (palette, "BMP", {}),
    ):
        file = io.BytesIO()
        picture.save(file, file_format, **options)
        labels = reader.read(file.getvalue(), "m")
        np.testing.assert_array_equal(labels, expected, err_msg=file_format)


def test_masks_of_0_and_255_are_colours():
    reader = MaskReader(2, "colours", (COLOURS[0], COLOURS[2]))
    mask = RNG.choice(np.array([0, 255], np.uint8), (7, 13))
    np.testing.assert_array_equal(reader.read(png(mask), "m"), mask // 255)
    bits = io.BytesIO()
    Image.fromarray(mask > 0).save(bits, "PNG")
    np.testing.assert_array_equal(reader.read(bits.getvalue(), "m"), mask // 255)


def test_a_colour_outside_the_table_is_named():
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[2, 3] = 9, 8, 7
    with pytest.raises(ValueError, match=r"^m/1\.png: .*\(9, 8, 7\) at row 2, column"):
        MaskReader(3, "colours", COLOURS).read(png(mask), "m/1.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_values": "rgb"}, "one of ids, colours: got 'rgb'"),
        ({"mask_values": "colours"}, "got 0 colours and 3 classes"),
        ({"zero_is_ignore": True, "id_map": ((1, 0),)}, "only one can apply"),
        (
            {"mask_values": "colours", "colours": COLOURS, "zero_is_ignore": True},
            "only one can apply",
        ),
        ({"id_map": ((1, 3),)}, r"train ids in \[0, 2\] or 255"),
        ({"id_map": ((1, 0), (1, 1))}, "different ids"),
        ({"id_map": ((256, 0),)}, r"different ids in \[0, 255\]"),
    ],
)
def test_conventions_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaskReader(3, **options)


def painted(ids, colours):
    return np.array(colours, np.uint8)[ids]


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (1030, 1025)])
def test_painting_and_reading_back_gives_the_ids(size):
    colours = get_spec("isaid").colours
    ids = np.random.default_rng(0).integers(0, len(colours), size)
    np.testing.assert_array_equal(
        colours_to_ids(painted(ids, colours), colours, "m"), ids
    )


def test_ids_may_be_given_and_shared():
    mask = painted(np.array([[0, 1], [2, 3]]), MASK_COLOURS)
    labels = colours_to_ids(mask, MASK_COLOURS, "m", ids=(255, 7, 7, 0))
    np.testing.assert_array_equal(labels, [[255, 7], [7, 0]])
    # Twice in the table, with one id: no contradiction.
    again = colours_to_ids(mask, (*MASK_COLOURS, (3, 2, 1)), "m", ids=(255, 7, 7, 0, 0))
    np.testing.assert_array_equal(again, labels)


@pytest.mark.parametrize("row", [0, 1500])
def test_an_unknown_colour_is_named_with_its_file_and_place(row):
    mask = np.zeros((1501, 800, 3), np.uint8)
    mask[row, 17] = (1, 2, 3)
    with pytest.raises(
        ValueError, match=rf"^a/b\.png: .*found \(1, 2, 3\) at row {row}, column 17\. "
    ):
        colours_to_ids(mask, MASK_COLOURS, "a/b.png")


@pytest.mark.parametrize(
    ("colours", "ids", "message"),
    [
        (MASK_COLOURS, (0, 1, 2), "4 colours and ids"),
        (MASK_COLOURS, (0, 1, 2, 256), r"\[0, 255\]"),
        ((*MASK_COLOURS, (0, 0, 0)), None, r"\(0, 0, 0\) has 0 and 4"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(colours, ids, message):
    with pytest.raises(ValueError, match=message):
        colours_to_ids(np.zeros((2, 3, 3), np.uint8), colours, "m", ids)
