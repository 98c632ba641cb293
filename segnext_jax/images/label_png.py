"""Label maps as PNG files: ids for programs, colours of a palette for people."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from zlib_ng import zlib_ng

# The level of zlib above which files of label maps hardly shrink.
_LEVEL = 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bit depth 8, grey, deflate, the only filter method, not interlaced.
_FORMAT = bytes((8, 0, 0, 0, 0))
_UNFILTERED = 0
# Source: zlib's technical notes: 258 bytes of two bits.
_MAX_RATIO = 1032


def write_label_png(
    file: Any,
    labels: UInt8[np.ndarray, "height width"],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Write a label map as an 8-bit PNG.

    Args:
      file: A binary file to write into; it stays open.
      labels: One id per pixel.
      colours: (red, green, blue) of each id, other ids are black; None: a grey file,
        whose values are the ids.
    """
    size = labels.shape[::-1]
    # frombuffer makes no copy: the map of a very large image takes hundreds of MB.
    mode = "L" if colours is None else "P"
    image = Image.frombuffer(
        mode, size, np.ascontiguousarray(labels), "raw", mode, 0, 1
    )
    if colours is not None:
        # All 256: a viewer may refuse a file with an id beyond its palette.
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colours)] = colours
        image.putpalette(palette.tobytes())
    image.save(file, format="png", compress_level=_LEVEL)


def encode_label_png(
    labels: UInt8[np.ndarray, "height width"],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> bytes:
    """Return the contents of a file; see `write_label_png`."""
    file = io.BytesIO()
    write_label_png(file, labels, colours)
    return file.getvalue()


def decode_unfiltered_png(encoded: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """Decode an 8-bit grey PNG with unfiltered rows, as preparations write it.

    This takes a quarter of the time of OpenCV, which inflates with the older zlib and
    passes each row through libpng's filters.

    Args:
      encoded: Contents of a file.

    Returns:
      The grey values; None for any other or broken file, to be decoded (or refused) by
      a library.
    """
    if len(encoded) < 33 or not encoded.startswith(_SIGNATURE):
        return None
    width, height = struct.unpack(">II", encoded[16:24])
    if encoded[24:29] != _FORMAT:
        return None
    compressed = b"".join(_data_chunks(encoded))
    size = height * (width + 1)
    # Deflate cannot shrink data further: what is promised is not there.
    if size > _MAX_RATIO * len(compressed):
        return None
    stream = zlib_ng.decompressobj()
    try:
        # Checks the sum of the stream. No more than promised is inflated.
        rows = stream.decompress(compressed, size + 1)
    # zlib_ng's annotations name a class of its own, `Exception`.
    except zlib_ng.error:  # pyright: ignore[reportGeneralTypeIssues]
        return None
    if len(rows) != size or not stream.eof:
        return None
    table = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    if (table[:, 0] != _UNFILTERED).any():
        return None
    return np.ascontiguousarray(table[:, 1:])


def _data_chunks(encoded: bytes) -> list[bytes]:
    chunks = []
    start = len(_SIGNATURE)
    while start + 8 <= len(encoded):
        length, kind = struct.unpack(">I4s", encoded[start : start + 8])
        if kind == b"IDAT":
            chunks.append(encoded[start + 8 : start + 8 + length])
        start += length + 12
    return chunks
