import io

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.datasets.decode import (
    check_labels,
    decode_image,
    decode_label,
    encode_label,
    png_size,
)

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (33, 47, 3), np.uint8), (0, 0), 3)


def encoded(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def test_images_are_rgb():
    np.testing.assert_array_equal(
        decode_image(encoded(Image.fromarray(PHOTO), "PNG")), PHOTO
    )


def test_alpha_is_dropped_and_palettes_are_looked_up():
    picture = Image.fromarray(PHOTO)
    for mode in ("RGBA", "P", "LA"):
        expected = np.array(picture.convert(mode).convert("RGB"))
        decoded = decode_image(encoded(picture.convert(mode), "PNG"))
        np.testing.assert_array_equal(decoded, expected)


def test_grey_and_16_bit_images_become_8_bit_rgb():
    grey = encoded(Image.fromarray(PHOTO[..., 0]), "PNG")
    np.testing.assert_array_equal(
        decode_image(grey), np.repeat(PHOTO[..., :1], 3, axis=2)
    )
    deep = cv2.imencode(".png", PHOTO[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decode_image(deep), PHOTO)


def test_cmyk_jpeg_is_close_to_the_photograph():
    decoded = decode_image(encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"))
    assert decoded.shape == PHOTO.shape
    assert np.abs(decoded.astype(int) - PHOTO).mean() < 10  # JPEG's own loss: 4.


def test_exif_orientation_is_applied():
    orientation = Image.Exif()
    orientation[0x0112] = 6  # Turn a quarter clockwise for display.
    jpeg = encoded(Image.fromarray(PHOTO), "JPEG", exif=orientation)
    plain = encoded(Image.fromarray(PHOTO), "JPEG")
    np.testing.assert_array_equal(decode_image(jpeg), np.rot90(decode_image(plain), -1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.999])
def test_truncated_images_are_refused_by_name(file_format, part):
    whole = encoded(Image.fromarray(PHOTO), file_format)
    with pytest.raises(ValueError, match=r"^street_7: cannot be decoded .*truncated"):
        decode_image(whole[: int(part * len(whole))], "street_7")


def test_a_decoder_that_fills_a_truncated_jpeg_with_grey_is_not_believed(monkeypatch):
    # OpenCV 4 does so; OpenCV 5 returns None.
    whole = encoded(Image.fromarray(PHOTO), "JPEG")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: PHOTO.copy())
    assert decode_image(whole + b"trailing bytes").shape == PHOTO.shape
    with pytest.raises(ValueError, match="truncated"):
        decode_image(whole[:-2])


def test_bytes_that_are_no_image_are_refused():
    for garbage in (b"", b"<html>404</html>", b"\xff\xd8\xff\xd9"):
        with pytest.raises(ValueError, match="photo: cannot be decoded"):
            decode_image(garbage, "photo")
        with pytest.raises(ValueError, match="photo: its label map cannot be decoded"):
            decode_label(garbage, "photo")


def test_labels_survive_encoding():
    labels = RNG.integers(0, 256, (5, 9), np.uint8)
    np.testing.assert_array_equal(decode_label(encode_label(labels)), labels)
    assert png_size(encode_label(labels)) == (5, 9)
    assert png_size(b"GIF89a") is None


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_indices_are_kept_whatever_the_palette(bits):
    labels = RNG.integers(0, 2**bits, (7, 13), np.uint8)
    picture = Image.fromarray(labels, "L")
    picture = picture.convert("P")
    picture.putdata(labels.ravel().tolist())
    picture.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    png = encoded(picture, "PNG", bits=bits)
    assert (png[24], png[25]) == (bits, 3)
    np.testing.assert_array_equal(decode_label(png), labels)


def grey_png(labels: np.ndarray, bits: int) -> bytes:
    """Write a grey PNG of few bits, which no library here does unasked."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = labels.shape
    rows = b""
    for row in labels:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits_are_not_stretched(bits):
    labels = RNG.integers(0, 2**bits, (7, 13), np.uint8)
    np.testing.assert_array_equal(decode_label(grey_png(labels, bits)), labels)


def test_16_bit_labels_are_accepted_only_when_they_fit():
    labels = RNG.integers(0, 256, (5, 9)).astype(np.uint16)
    png = cv2.imencode(".png", labels)[1].tobytes()
    np.testing.assert_array_equal(decode_label(png), labels)
    labels[2, 2] = 1000
    png = cv2.imencode(".png", labels)[1].tobytes()
    with pytest.raises(ValueError, match=r"mask_3: ids .* \[0, 255\]: got .*1000"):
        decode_label(png, "mask_3")


def test_colour_masks_are_refused():
    with pytest.raises(ValueError, match="mask_3: .* one channel, .* has 3"):
        decode_label(encoded(Image.fromarray(PHOTO), "PNG"), "mask_3")


def test_check_labels_names_the_image_the_ids_and_the_pixels():
    labels = np.full((4, 5), 10, np.uint8)
    labels[0, 0] = 255
    check_labels(labels, 11, 255, "a")
    labels[1:3, 1] = 37
    with pytest.raises(
        ValueError, match=r"^a: label ids must lie in \[0, 10\] .* found 37 on 2 pixels"
    ):
        check_labels(labels, 11, 255, "a")
    check_labels(labels, 256, 255, "a")
    with pytest.raises(ValueError, match="found 255 on 1 pixels"):
        check_labels(labels, 11, 37, "a")
    with pytest.raises(ValueError, match=r"were the ids 1\.\. meant to start at 0"):
        check_labels(labels[:1] + np.uint8(1), 11, 0, "a")
