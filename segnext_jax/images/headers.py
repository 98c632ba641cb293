"""What an encoded image says of itself before it is decoded: format, size, its end.

Decoders allocate what a header promises, and say little about why they fail. So this
module reads the header first, and allocates nothing.
"""

import dataclasses
import re
import struct
import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (
    (b"\xff\xd8", "JPEG"),
    (PNG_SIGNATURE, "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_CONVERT = "Convert it to JPEG or PNG."
# Beginnings of what people save as photographs, and what to do about it.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer", "Fetch the file: git lfs pull."),
    (b"<svg", "an SVG drawing", _CONVERT),
    (b"<", "a web page (HTML or XML)", "Download the file anew."),
    (b"%PDF", "a PDF document", _CONVERT),
    (b"8BPS", "a Photoshop document", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"PK\x03\x04", "a zip archive", "Unpack it."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it."),
    (b"#?R", "a Radiance HDR picture", _CONVERT),
    (b"v/1\x01", "an OpenEXR picture", _CONVERT),
    (b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
)
_TIFF_COMPRESSIONS = {
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
}
_TIFF_FORMATS = {2: "signed whole numbers", 3: "floating point", 6: "complex numbers"}
# Tags of TIFF: width, height, bits, compression, samples, sample format; strips, tiles.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _FORMAT = 256, 257, 258, 259, 277, 339
_DATA_TAGS = ((273, 279), (324, 325))
# A marker of a JPEG that is neither a stuffed byte, nor a restart, nor filling.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_JPEG_END, _JPEG_START, _JPEG_PRIVATE = 0xD9, 0xD8, 0x01
# Start of frame: what names the size. DHT, JPG and DAC lie between them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image file promises.

    Attributes:
      format: "JPEG", "PNG", "TIFF", "WebP", "BMP", "GIF", "JPEG 2000", "AVIF" or
        "PNM"; empty: none of these.
      size: (height, width) before an EXIF orientation; None where the header ends
        before saying it.
    """

    format: str
    size: tuple[int, int] | None


def read_header(encoded: bytes) -> Header:
    """Return format and size of an image file; it raises nothing.

    Args:
      encoded: Contents of any file.
    """
    file_format = _format_of(encoded)
    try:
        size = _SIZES[file_format](encoded) if file_format else None
    except (struct.error, IndexError):
        size = None
    return Header(file_format, size)


def jpeg_is_whole(encoded: bytes) -> bool:
    """Return whether a JPEG reaches its own end marker.

    The function walks the segments, because an end marker alone proves nothing: phones
    store a video after the end (motion photos), and a thumbnail before the end has an
    end marker of its own.

    Args:
      encoded: Contents of a file that begins as a JPEG.
    """
    return encoded.endswith(b"\xff\xd9") or any(
        marker == _JPEG_END for marker, _ in _jpeg_segments(encoded)
    )


def why_undecodable(encoded: bytes, header: Header) -> tuple[str, str]:
    """Return why a decoder may have failed, and what to do, for an error message.

    Args:
      encoded: Contents of the file.
      header: What `read_header` says of it.
    """
    replace = "Replace the file."
    if not encoded:
        return "it is empty: truncated, perhaps while it was copied", replace
    if not header.format:
        return _foreign(encoded)
    size = f"{len(encoded)} bytes"
    if header.size is None:
        return f"its {header.format} header is truncated or damaged, {size}", replace
    if 0 in header.size:
        height, width = header.size
        return f"its header says {height} x {width} (height, width)", replace
    if header.format == "TIFF" and (reason := _unusual_tiff(encoded)):
        return reason, "Convert it to a TIFF or PNG of 8 or 16 bits and 1 or 3 bands."
    if _ends_early(encoded, header.format):
        return f"it is truncated, {size}: its end is missing", replace
    if header.format == "PNG" and (kind := _damaged_png_chunk(encoded)):
        return f"it is damaged: the checksum of its chunk {kind} is wrong", replace
    reason = f"the decoder refuses its {header.format} data, {size}: damaged or unusual"
    return reason, f"{_CONVERT[:-1]}, or replace the file."


def tiff_tags(encoded: bytes) -> dict[int, tuple[int, ...]]:
    """Return the whole numbers in the first directory of a TIFF, by tag.

    Args:
      encoded: Contents of a TIFF or BigTIFF. What lies beyond the end is left out.
    """
    order = "<" if encoded[:2] == b"II" else ">"
    is_big = encoded[2:4] in (b"+\0", b"\0+")
    word, entry_size = ("Q", 20) if is_big else ("I", 12)
    tags: dict[int, tuple[int, ...]] = {}
    try:
        (start,) = struct.unpack_from(order + word, encoded, 8 if is_big else 4)
        count_type = "Q" if is_big else "H"
        (count,) = struct.unpack_from(order + count_type, encoded, start)
        start += struct.calcsize(count_type)
        for position in range(start, start + min(count, 4096) * entry_size, entry_size):
            tag, kind, number = struct.unpack_from(
                order + "HH" + word, encoded, position
            )
            value_type = {3: "H", 4: "I", 16: "Q"}.get(kind)
            if value_type is None or not 0 < number <= len(encoded):
                continue
            values = struct.Struct(f"{order}{number}{value_type}")
            place = position + entry_size - struct.calcsize(word)
            if values.size > struct.calcsize(word):
                (place,) = struct.unpack_from(order + word, encoded, place)
            tags[tag] = values.unpack_from(encoded, place)
    except (struct.error, OverflowError):  # Places of 64 bits may exceed any index.
        pass
    return tags


def _format_of(encoded: bytes) -> str:
    for signature, name in _SIGNATURES:
        if encoded.startswith(signature):
            return name
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WebP"
    if encoded[4:8] == b"ftyp" and b"avif" in encoded[8 : _box_size(encoded)]:
        return "AVIF"
    return "PNM" if re.match(rb"P[1-6][\s#]", encoded) else ""


def _box_size(encoded: bytes) -> int:
    return min(int.from_bytes(encoded[:4], "big"), 256)


def _foreign(encoded: bytes) -> tuple[str, str]:
    start = encoded[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for beginning, what, advice in _FOREIGN:
        if start[: len(beginning)].lower() == beginning.lower():
            return f"it is {what}, not an image file", advice
    if encoded[4:8] == b"ftyp":
        if re.search(
            rb"hei[cxms]|hev[cxms]|mif1|msf1", encoded[8 : _box_size(encoded)]
        ):
            return "it is a HEIC photograph, which OpenCV does not read", _CONVERT
        return "it is a video, not an image file", "Take a frame of it."
    size = f"{len(encoded)} bytes"
    return f"it is not an image file, or a truncated one, {size}", "Replace the file."


def _unusual_tiff(encoded: bytes) -> str:
    tags = tiff_tags(encoded)
    if name := _TIFF_COMPRESSIONS.get(tags.get(_COMPRESSION, (1,))[0]):
        return f"it is a TIFF compressed by {name}, which OpenCV does not read"
    bits, samples = tags.get(_BITS, (1,))[0], tags.get(_SAMPLES, (1,))[0]
    kind = _TIFF_FORMATS.get(tags.get(_FORMAT, (1,))[0], "")
    if samples > 4:
        return f"it is a TIFF of {samples} bands, and a photograph has 1, 3 or 4"
    if kind or bits > 16:
        what = kind or "whole numbers"
        return f"it is a TIFF of {bits} bits a sample, {what}, not of 8 or 16 bits"
    return ""


def _ends_early(encoded: bytes, file_format: str) -> bool:
    if file_format == "JPEG":
        return not jpeg_is_whole(encoded)
    if file_format == "PNG":
        return all(kind != b"IEND" for kind, _, _ in _png_chunks(encoded))
    if file_format == "WebP":
        return int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
    if file_format == "BMP":
        return int.from_bytes(encoded[2:6], "little") > len(encoded)
    if file_format == "TIFF":
        tags = tiff_tags(encoded)
        parts = [
            offset + size
            for offsets, sizes in _DATA_TAGS
            for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()))  # noqa: B905 (a damaged file may have more of one)
        ]
        return max(parts, default=0) > len(encoded)
    return False


def _damaged_png_chunk(encoded: bytes) -> str:
    for kind, data, checksum in _png_chunks(encoded):
        if zlib.crc32(data, zlib.crc32(kind)) != checksum:
            return kind.decode("latin-1")
    return ""


def _png_chunks(encoded: bytes) -> list[tuple[bytes, bytes, int]]:
    """Return kind, data and checksum of the chunks that are whole."""
    chunks = []
    start = len(PNG_SIGNATURE)
    while start + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, start)
        end = start + 12 + length
        if end > len(encoded):
            break
        checksum = int.from_bytes(encoded[end - 4 : end], "big")
        chunks.append((kind, encoded[start + 8 : end - 4], checksum))
        start = end
    return chunks


def _jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of each segment's contents, the end marker included."""
    position = 0
    while match := _JPEG_MARKER.search(encoded, position):
        marker, position = match[1][0], match.end()
        yield marker, position
        if marker == _JPEG_END:
            return
        if marker not in (_JPEG_START, _JPEG_PRIVATE):
            # Within a scan, data follow its header up to the next marker.
            position += int.from_bytes(encoded[position : position + 2], "big")


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    for marker, position in _jpeg_segments(encoded):
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">3xHH", encoded, position)
            return height, width
    return None


def _png_size(encoded: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", encoded, 16)
    return height, width


def _tiff_size(encoded: bytes) -> tuple[int, int] | None:
    tags = tiff_tags(encoded)
    if _WIDTH not in tags or _HEIGHT not in tags:
        return None
    return tags[_HEIGHT][0], tags[_WIDTH][0]


def _bmp_size(encoded: bytes) -> tuple[int, int]:
    if encoded[14] == 12:  # OS/2
        width, height = struct.unpack_from("<HH", encoded, 18)
    else:
        # A negative height: rows from top to bottom.
        width, height = map(abs, struct.unpack_from("<ii", encoded, 18))
    return height, width


def _gif_size(encoded: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", encoded, 6)
    return height, width


def _webp_size(encoded: bytes) -> tuple[int, int] | None:
    kind = encoded[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(encoded[i : i + 3], "little") for i in (24, 27))
        return (height + 1, width + 1) if len(encoded) >= 30 else None
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _jpeg_2000_size(encoded: bytes) -> tuple[int, int] | None:
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", encoded, start + 8)
    return max(bottom - top, 0), max(right - left, 0)


def _avif_size(encoded: bytes) -> tuple[int, int] | None:
    # One box of each image within, thumbnails too: the largest counts.
    sizes = [
        struct.unpack_from(">II", encoded, match.end() + 4)
        for match in re.finditer(rb"ispe", encoded[: 1 << 16])
    ]
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return height, width


def _pnm_size(encoded: bytes) -> tuple[int, int] | None:
    match = _PNM.match(encoded[:4096])
    return (int(match[2]), int(match[1])) if match else None


_SIZES = {
    "JPEG": _jpeg_size,
    "PNG": _png_size,
    "TIFF": _tiff_size,
    "BMP": _bmp_size,
    "GIF": _gif_size,
    "WebP": _webp_size,
    "JPEG 2000": _jpeg_2000_size,
    "AVIF": _avif_size,
    "PNM": _pnm_size,
}
