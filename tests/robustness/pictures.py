"""Encoded pictures of all formats, whole and malformed on purpose."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.robustness import mutations

FORMATS = {
    "JPEG": ("jpg", [{}, {"progressive": True}, {"subsampling": 0, "quality": 5}]),
    "PNG": ("png", [{}, {"optimize": True}, {"bits": 4}]),
    "TIFF": ("tif", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}]
             + [{"compression": "tiff_deflate"}, {"big_tiff": True}]),
    "WEBP": ("webp", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08"}]),
    "BMP": ("bmp", [{}]),
    "GIF": ("gif", [{}]),
    "JPEG2000": ("jp2", [{}]),
    "AVIF": ("avif", [{}]),
    "PPM": ("ppm", [{}]),
}  # fmt: skip
_MODES = ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "I", "F")
FOREIGN = (
    b"",
    b"\0" * 3000,
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99,
    b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + b"\0" * 99,
    b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    b"PK\x03\x04" + b"\0" * 99,
    b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    b"\x93NUMPY\x01\0",
    b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
)


def whole(rng: np.random.Generator) -> tuple[str, str, bytes]:
    """Return what it is, its suffix, and the contents of a random picture."""
    while True:
        name = str(rng.choice(list(FORMATS)))
        suffix, options = FORMATS[name]
        option = options[int(rng.integers(len(options)))]
        mode = str(rng.choice(_MODES))
        height, width = rng.integers(1, 80, 2).tolist()
        file = io.BytesIO()
        try:
            _picture(rng, height, width, mode).save(file, name, **option)
        except (OSError, ValueError, KeyError, SystemError, TypeError):
            continue  # This format has no such pixels.
        if name == "GIF" and rng.random() < 0.2:  # Its canvas promises more.
            data = bytearray(file.getvalue())
            data[6:10] = b"\xff\xff\xff\xff"
            return f"GIF {mode} of a large canvas", suffix, bytes(data)
        return f"{name} {mode} {option}", suffix, file.getvalue()


def _picture(
    rng: np.random.Generator, height: int, width: int, mode: str
) -> Image.Image:
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(dtype))
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    pixels = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return Image.fromarray(pixels).convert(mode)


def malformed(rng: np.random.Generator) -> tuple[str, str, bytes, bool]:
    """Return what it is, suffix, contents, and whether it surely is no picture."""
    what, suffix, data = whole(rng)
    kind = rng.random()
    if kind < 0.1:
        return what, suffix, data, False
    if kind < 0.3:
        # Formats that tell their length, or have an end that cannot be missed.
        is_told = suffix in ("jpg", "png", "webp", "bmp")
        return f"{what}, cut", suffix, mutations.cut(rng, data), is_told
    if kind < 0.4:
        foreign = FOREIGN[int(rng.integers(len(FOREIGN)))]
        return f"{foreign[:12]!r} called .{suffix}", suffix, foreign, True
    if kind < 0.5:
        return _false_png(rng)
    if kind < 0.55:
        noise = data[: int(rng.integers(2, 40))] + rng.bytes(int(rng.integers(5000)))
        return f"{what}, noise behind the signature", suffix, noise, False
    name, changed = mutations.mutate(rng, data)
    if rng.random() < 0.3:
        more, changed = mutations.mutate(rng, changed or b"\0")
        name += f" and {more}"
    return f"{what}, {name}", suffix, changed, False


def png(
    height: int, width: int, kind: int, data: bytes, extra: bytes = b"", bits: int = 8
) -> bytes:
    """Write a PNG whose parts need not fit each other."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    profile = chunk(extra[:4], extra[4:]) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + profile
        + palette
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def _false_png(rng: np.random.Generator) -> tuple[str, str, bytes, bool]:
    """Return a PNG that promises too much, or inflates to more than it promises."""
    kind = int(rng.choice([0, 2, 3, 4, 6]))
    choice = int(rng.integers(4))
    if choice == 0:  # Of pixels.
        height, width = (int(rng.choice(mutations.LARGE)) for _ in range(2))
        data = png(height, width, kind, zlib.compress(bytes(1000)))
        is_wrong = not 0 < height * width <= 2**28
        return f"PNG of {height} x {width}", "png", data, is_wrong
    if choice == 1:  # A bomb behind few pixels.
        data = png(3, 4, kind, _bomb())
        return f"PNG of 3 x 4 of kind {kind} and 64 MiB", "png", data, False
    if choice == 2:  # In a colour profile, in a text.
        name = [b"iCCPa\0\0", b"zTXta\0\0", b"iTXta\0\1\0\0\0"][int(rng.integers(3))]
        rows = zlib.compress(bytes(5 * (1 + 6 * 4)))
        data = png(5, 6, 6, rows, name + _bomb())
        return f"PNG with 64 MiB in {name[:4]!r}", "png", data, False
    bits = int(rng.integers(256))
    data = png(5, 6, kind, zlib.compress(rng.bytes(200)), bits=bits)
    return f"PNG of kind {kind} and {bits} bits", "png", data, False


def _bomb() -> bytes:
    return zlib.compress(bytes(2**26), 1)
