import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from segnext_jax.images.decode import (
    check_labels,
    decode_colours,
    decode_image,
    decode_label,
    encode_label,
    exif_orientation,
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
    for garbage in (b"", b"<html>404</html>", b"II*\0", b"\xff\xd8\xff\xd9"):
        with pytest.raises(ValueError, match="photo: cannot be decoded"):
            decode_image(garbage, "photo")
    for garbage in (b"", b"<html>404</html>", b"II*\0", b"BM", b"RIFF0000WEBPVP8L"):
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


def saved(picture: Image.Image, file_format: str, **options) -> np.ndarray:
    """Return what Pillow reads of a file that it wrote."""
    with Image.open(io.BytesIO(encoded(picture, file_format, **options))) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("WEBP", {"quality": 80}),
        ("BMP", {}),
        ("PNG", {}),
    ],
)
def test_image_formats_equal_another_decoder(file_format, options, mode):
    alpha = RNG.integers(0, 256, PHOTO.shape[:2], np.uint8)
    picture = Image.fromarray(PHOTO).convert(mode)
    if mode[-1] == "A":
        picture.putalpha(Image.fromarray(alpha))
    expected = saved(picture, file_format, **options)
    decoded = decode_image(encoded(picture, file_format, **options))
    # Lossy WebP: libwebp's upsampling of chroma may round otherwise.
    tolerance = 2 if "quality" in options else 0
    np.testing.assert_allclose(decoded.astype(int), expected, atol=tolerance)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_eight_are_kept(ending, channels):
    deep = RNG.integers(0, 65536, (7, 5, channels)).astype(np.uint16)
    decoded = decode_image(cv2.imencode(ending, deep[..., ::-1])[1].tobytes())
    expected = np.broadcast_to(deep >> 8, (7, 5, 3)).astype(int)
    # OpenCV rounds TIFF and cuts PNG.
    np.testing.assert_allclose(decoded, expected, atol=1 if ending == ".tif" else 0)


@pytest.mark.parametrize("file_format", ["TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_other_truncated_files_are_refused_by_name(file_format, part):
    options = {"lossless": True} if file_format == "WEBP" else {}
    whole = encoded(Image.fromarray(PHOTO[..., 0]), file_format, **options)
    with pytest.raises(ValueError, match="^street_7: cannot be decoded"):
        decode_image(whole[: int(part * len(whole))], "street_7")
    with pytest.raises(ValueError, match="^street_7: its label map cannot be decoded"):
        decode_label(whole[: int(part * len(whole))], "street_7")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_applied_to_the_photograph(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = encoded(Image.fromarray(PHOTO), "JPEG", exif=exif)
    with Image.open(io.BytesIO(jpeg)) as image:
        expected = np.array(ImageOps.exif_transpose(image)).astype(int)
    decoded = decode_image(jpeg)
    assert decoded.shape == expected.shape
    # Two JPEG decoders differ by rounding, a wrong turn by 20 and more.
    assert np.abs(decoded - expected).mean() < 1
    assert exif_orientation(jpeg) == orientation
    assert exif_orientation(b"nothing") == 1


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True, "exact": True}),
    ],
)
def test_ids_survive_each_lossless_format(file_format, options):
    labels = RNG.integers(0, 256, (33, 47), np.uint8)
    grey = Image.fromarray(labels)
    forms = [grey, Image.merge("RGB", [grey] * 3)]
    if file_format != "WEBP":
        palette = Image.frombytes("P", grey.size, labels.tobytes())
        palette.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
        forms.append(palette)
    if file_format != "BMP":
        alpha = Image.fromarray(RNG.integers(0, 256, (33, 47), np.uint8))
        forms.append(Image.merge("RGBA", [grey] * 3 + [alpha]))
        forms.append(Image.merge("LA", [grey, alpha]))
    for form in forms:
        decoded = decode_label(encoded(form, file_format, **options))
        np.testing.assert_array_equal(decoded, labels, err_msg=form.mode)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_a_set_bit_is_one(file_format):
    labels = RNG.integers(0, 2, (7, 13), np.uint8)
    decoded = decode_label(encoded(Image.fromarray(labels > 0), file_format))
    np.testing.assert_array_equal(decoded, labels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_wide_tiff_labels_are_accepted_only_when_they_are_ids(dtype):
    labels = RNG.integers(0, 256, (5, 9)).astype(dtype)
    tiff = cv2.imencode(".tif", labels)[1].tobytes()
    np.testing.assert_array_equal(decode_label(tiff), labels)
    for wrong in {np.uint16: [256], np.float32: [0.5, np.nan]}.get(dtype, [256, -1]):
        labels[2, 2] = wrong
        tiff = cv2.imencode(".tif", labels)[1].tobytes()
        with pytest.raises(
            ValueError, match=r"^mask_3: ids of a label map must be whole"
        ):
            decode_label(tiff, "mask_3")


@pytest.mark.parametrize(("file_format", "kind"), [("JPEG", "JPEG"), ("WEBP", "lossy")])
def test_masks_compressed_with_loss_are_refused(file_format, kind):
    mask = encoded(Image.fromarray(PHOTO[..., 0]), file_format)
    for decode in (decode_label, decode_colours):
        with pytest.raises(ValueError, match=f"^m: .*without loss.* got a {kind}"):
            decode(mask, "m")


def test_lossy_webp_is_told_behind_other_chunks():
    exif = Image.Exif()
    exif[0x0112] = 1
    webp = encoded(Image.fromarray(PHOTO), "WEBP", exif=exif)
    assert webp[12:16] == b"VP8X"
    with pytest.raises(ValueError, match="got a lossy WebP"):
        decode_label(webp)


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
