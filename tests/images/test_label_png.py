import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.images.decode import decode_label, encode_label
from segnext_jax.images.label_png import decode_unfiltered_png, encode_label_png

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


def chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return (
        struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
    )


def split_data(encoded: bytes, size: int) -> bytes:
    """Cut the only IDAT chunk of a PNG into several."""
    start = encoded.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", encoded[start : start + 4])
    data = encoded[start + 8 : start + 8 + length]
    parts = [chunk(b"IDAT", data[i : i + size]) for i in range(0, length, size)]
    return encoded[:start] + b"".join(parts) + encoded[start + 12 + length :]


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (37, 53), (300, 411)])
def test_what_preparation_writes_is_read_back(size):
    labels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    encoded = encode_label(labels)
    np.testing.assert_array_equal(decode_unfiltered_png(encoded), labels)
    opencv = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(opencv, labels)
    if labels.size > 1000:
        several = split_data(encoded, 700)
        assert several.count(b"IDAT") > 1
        np.testing.assert_array_equal(decode_unfiltered_png(several), labels)


def test_other_files_are_left_to_libraries():
    def png(image, *options):
        return cv2.imencode(".png", image, options)[1].tobytes()

    gradient = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    filtered = png(gradient, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)
    others = {
        "filtered": filtered,
        "colour": png(np.dstack([LABELS] * 3)),
        "16 bits": png(LABELS.astype(np.uint16) * 3),
        "1 bit": png(LABELS // 128 * 255, cv2.IMWRITE_PNG_BILEVEL, 1),
        "JPEG": cv2.imencode(".jpg", LABELS)[1].tobytes(),
        "nothing": b"",
    }
    assert {n for n, e in others.items() if decode_unfiltered_png(e) is None} == set(
        others
    )
    np.testing.assert_array_equal(decode_label(filtered), gradient)


def test_a_broken_file_is_not_half_read():
    encoded = encode_label(LABELS)
    for end in range(0, len(encoded) - 16, 97):
        assert decode_unfiltered_png(encoded[:end]) is None
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_label(encoded[: len(encoded) // 2])
    damaged = bytearray(encoded)
    damaged[len(damaged) // 2] ^= 0x55
    assert decode_unfiltered_png(bytes(damaged)) is None


@pytest.mark.parametrize("missing", [1, 4])
def test_data_without_their_checksum_are_left_to_libraries(missing):
    encoded = encode_label(LABELS)
    start = encoded.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", encoded[start : start + 4])
    data = encoded[start + 8 : start + 8 + length]
    for kept in (data, data[:-missing]):
        whole = encoded[:start] + chunk(b"IDAT", kept) + encoded[start + 12 + length :]
        assert (decode_unfiltered_png(whole) is None) == (kept is not data)
