"""What files say of themselves, and the reasons that are given for refusals."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.images.decode import decode_colours, decode_image, decode_label
from segnext_jax.images.decoders import exif_orientation, from_pillow
from segnext_jax.images.headers import read_header, tiff_tags

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (33, 47, 3), np.uint8), (0, 0), 3)
# The beginning of an MP4 and of the still image in it that phones store, by turns.
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\xff\xda\0\x0c\xff\xc0\0\x11" * 9


def encoded(picture: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def png(height: int, width: int, kind: int = 0, data: bytes = b"") -> bytes:
    """Write a PNG of 8 bits whose data need not be what its header promises."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    data = chunk(b"IDAT", data or zlib.compress(b"\0" * 99))
    return b"\x89PNG\r\n\x1a\n" + header + palette + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("file_format", "name", "options"),
    [
        ("JPEG", "JPEG", {}),
        ("JPEG", "JPEG", {"progressive": True, "comment": b"\xff\xd9"}),
        ("PNG", "PNG", {}),
        ("TIFF", "TIFF", {}),
        ("TIFF", "TIFF", {"big_tiff": True}),
        ("BMP", "BMP", {}),
        ("GIF", "GIF", {}),
        ("WEBP", "WebP", {}),
        ("WEBP", "WebP", {"lossless": True}),
        ("WEBP", "WebP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("JPEG2000", "JPEG 2000", {}),
        ("AVIF", "AVIF", {}),
        ("PPM", "PNM", {}),
    ],
)
def test_format_and_size_are_those_of_the_picture(file_format, name, options, mode):
    contents = encoded(Image.fromarray(PHOTO).convert(mode), file_format, **options)
    header = read_header(contents)
    assert (header.format, header.size) == (name, (33, 47))
    assert decode_image(contents).shape == PHOTO.shape
    for end in range(min(len(contents), 64)):
        size = read_header(contents[:end]).size
        assert size in (None, (33, 47))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_motion_photo_is_whole_and_a_cut_one_is_not(progressive):
    picture = Image.fromarray(PHOTO)
    thumbnail = encoded(picture.resize((8, 8)), "JPEG")
    jpeg = encoded(picture, "JPEG", progressive=progressive, exif=thumbnail)
    np.testing.assert_array_equal(decode_image(jpeg + MP4), decode_image(jpeg))
    # The end marker of the thumbnail is not the photograph's.
    with pytest.raises(ValueError, match="it is truncated"):
        decode_image(jpeg[: len(jpeg) * 3 // 4])


@pytest.mark.parametrize(
    ("beginning", "reason"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC photograph"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "it is a video"),
        (b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"GIF89a", "its GIF header is truncated"),
        (b"nothing at all", "not an image file, or a truncated one, 14 bytes"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(beginning, reason):
    with pytest.raises(ValueError, match=f"^a.jpg: cannot be decoded .*{reason}"):
        decode_image(beginning, "a.jpg")
    with pytest.raises(ValueError, match=f"^a.png: its label map .*{reason}"):
        decode_label(beginning, "a.png")


def tiff(bits=(8, 8, 8), sample_format=1, compression=1) -> bytes:
    """Write a TIFF of one strip, whose header may say anything."""
    data = bytes(6 * 4 * 4 * len(bits))
    entries = [
        (256, 4, 6),
        (257, 4, 4),
        (258, 3, bits),
        (259, 3, compression),
        (262, 3, 2 if len(bits) > 2 else 1),
        (273, 4, 8),
        (277, 3, len(bits)),
        (278, 4, 4),
        (279, 4, len(data)),
        (339, 3, (sample_format,) * len(bits)),
    ]
    directory, more = struct.pack("<H", len(entries)), b""
    after = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        values = values if isinstance(values, tuple) else (values,)
        packed = struct.pack(f"<{len(values)}{'HI'[kind == 4]}", *values)
        if len(packed) > 4:
            packed, more = struct.pack("<I", after + len(more)), more + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(
            4, b"\0"
        )
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return start + data + directory + bytes(4) + more


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"bits": (32,) * 3, "sample_format": 3},
            "of 32 bits a sample, floating point",
        ),
        ({"bits": (8,) * 7}, "of 7 bands"),
        ({"compression": 50000}, "compressed by ZSTD"),
        ({"compression": 34925}, "compressed by LZMA"),
    ],
)
def test_unusual_tiffs_are_refused_for_what_they_are(options, reason):
    assert decode_image(tiff()).shape == (4, 6, 3)
    with pytest.raises(ValueError, match=f"^p: .* it is a TIFF {reason}"):
        decode_image(tiff(**options), "p")


def test_an_entry_of_a_tiff_without_a_value_is_left_out():
    contents = tiff(compression=5)
    entry = struct.pack("<HHI", 259, 3, 1)
    assert entry in contents
    empty = contents.replace(entry, struct.pack("<HHI", 259, 3, 0))
    assert tiff_tags(contents)[259] == (5,) and 259 not in tiff_tags(empty)
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_image(contents[:40] + b"\0" + empty[41:60])


def test_a_flipped_bit_in_a_png_is_damage_and_not_truncation():
    contents = bytearray(encoded(Image.fromarray(PHOTO), "PNG"))
    contents[len(contents) // 2] ^= 0x10
    with pytest.raises(ValueError, match="the checksum of its chunk IDAT is wrong"):
        decode_image(bytes(contents))


@pytest.mark.parametrize("decode", [decode_image, decode_label, decode_colours])
@pytest.mark.parametrize("kind", [0, 2, 3])
@pytest.mark.parametrize("size", [(33_000, 33_000), (2**31 - 1, 2**31 - 1), (1, 2**31)])
def test_headers_that_promise_too_much_are_refused_before_decoding(decode, kind, size):
    height, width = size
    with pytest.raises(ValueError, match=r"at most 268,435,456 pixels.*_MAX_PIXELS"):
        decode(png(height, width, kind))


def test_the_limit_of_pixels_can_be_raised(monkeypatch):
    # Above Pillow's own limit, 179 million.
    rows = zlib.compress(bytes(13400 * 13401), 1)
    assert decode_label(png(13400, 13400, 3, rows)).shape == (13400, 13400)
    monkeypatch.setenv("SEGNEXT_JAX_MAX_PIXELS", "100")
    assert decode_label(png(10, 10, 0, zlib.compress(bytes(110)))).shape == (10, 10)
    with pytest.raises(ValueError, match="at most 100 pixels.* says 10 x 11"):
        decode_label(png(10, 11))
    monkeypatch.setenv("SEGNEXT_JAX_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="must be a number of pixels: got 'many'"):
        decode_label(png(10, 11))


def test_a_stream_longer_than_its_header_promises_is_not_inflated():
    bomb = zlib.compress(bytes(2**26))
    with pytest.raises(ValueError, match="cannot be decoded"):
        # 8-bit grey, unfiltered: the quick way.
        decode_label(png(1, 2**27, 0, bomb[: len(bomb) // 4]))
    labels = decode_label(png(3, 4, 0, bomb))
    assert labels.shape == (3, 4) and not labels.any()


def test_a_pillow_image_gives_what_its_file_gives(tmp_path):
    deep = RNG.integers(0, 65536, (5, 9)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(PHOTO)
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    picture.convert("P").save(tmp_path / "palette.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as opened:
            found = from_pillow(opened)
        np.testing.assert_array_equal(found, decode_image(path.read_bytes()))
    assert from_pillow(picture.convert("L").rotate(90, expand=True)).shape == (
        47,
        33,
        3,
    )
    for wrong in (np.float32([[0.5]]), np.int32([[70_000]])):
        with pytest.raises(ValueError, match="8 or 16 bits a channel: its mode is"):
            from_pillow(Image.fromarray(wrong))


def test_a_truncated_pillow_image_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(PHOTO), "PNG")[:900])
    with Image.open(path) as opened, pytest.raises(ValueError, match="must be whole"):
        from_pillow(opened)
    assert exif_orientation(path.read_bytes()) == 1


def test_a_big_tiff_whose_directory_is_beyond_all_memory_has_no_tags():
    for place in (2**63, 2**64 - 1):
        contents = b"II+\0\x08\0\0\0" + place.to_bytes(8, "little")
        assert tiff_tags(contents) == {}
        assert read_header(contents).size is None
