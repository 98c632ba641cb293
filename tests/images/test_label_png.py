import io

import numpy as np
import pytest
from PIL import Image

from segnext_jax.images.decode import decode_label
from segnext_jax.images.label_png import LabelPngWriter, encode_label_png

LABELS = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
COLOURS = ((10, 20, 30), (200, 100, 0), (0, 0, 255))


@pytest.mark.parametrize("colours", [None, COLOURS], ids=["grey", "palette"])
def test_decoders_find_the_ids_again(colours):
    encoded = encode_label_png(LABELS, colours)
    np.testing.assert_array_equal(decode_label(encoded), LABELS)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == ("L" if colours is None else "P")
        image.load()
        np.testing.assert_array_equal(np.asarray(image), LABELS)


def test_viewers_show_the_colours_and_black():
    labels = np.array([[0, 1, 2, 3, 255]], np.uint8)
    with Image.open(io.BytesIO(encode_label_png(labels, COLOURS))) as image:
        shown = np.asarray(image.convert("RGB"))
    assert shown.tolist() == [[*map(list, COLOURS), [0, 0, 0], [0, 0, 0]]]


def test_blocks_of_rows_make_one_file():
    file = io.BytesIO()
    writer = LabelPngWriter(file, LABELS.shape)
    for start, end in ((0, 1), (1, 20), (20, 37)):
        writer.write(LABELS[start:end])
    writer.close()
    np.testing.assert_array_equal(decode_label(file.getvalue()), LABELS)
