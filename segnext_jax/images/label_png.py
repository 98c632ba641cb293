"""Label maps as PNG files with a palette: ids for programs, colours for people."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
# Of zlib's levels the one from which files of label maps hardly shrink.
_LEVEL = 6


class LabelPngWriter:
    """Writes a label map as an 8-bit PNG, block of rows by block of rows.

    Only the block is in memory. Rows are stored unfiltered, which suits ids best.
    """

    def __init__(
        self,
        file: io.BufferedIOBase,
        size: tuple[int, int],
        colours: Sequence[tuple[int, int, int]] | None = None,
    ):
        """Write the header.

        Args:
            file: Where to write; it stays open.
            size: (height, width) of the whole map.
            colours: (red, green, blue) of each id, other ids are black; None: a grey
                file, whose values are the ids.
        """
        self._file = file
        self._height, self._width = size
        self._num_written = 0
        self._compressor = zlib.compressobj(_LEVEL)
        kind = _GREY if colours is None else _PALETTE
        file.write(_SIGNATURE)
        header = struct.pack(">IIBBBBB", self._width, self._height, 8, kind, 0, 0, 0)
        self._write_chunk(b"IHDR", header)
        if colours is not None:
            # All 256: a viewer may refuse a file with an id beyond its palette.
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(colours)] = colours
            self._write_chunk(b"PLTE", palette.tobytes())

    def write(self, rows: UInt8[np.ndarray, "rows width"]) -> None:
        """Write the next rows."""
        assert rows.shape[1] == self._width
        unfiltered = np.zeros((rows.shape[0], self._width + 1), np.uint8)
        unfiltered[:, 1:] = rows
        self._write_data(self._compressor.compress(unfiltered.tobytes()))
        self._num_written += rows.shape[0]

    def close(self) -> None:
        """Write the end of the file, once all rows are there."""
        assert self._num_written == self._height
        self._write_data(self._compressor.flush())
        self._write_chunk(b"IEND", b"")

    def _write_data(self, data: bytes) -> None:
        if data:
            self._write_chunk(b"IDAT", data)

    def _write_chunk(self, kind: bytes, data: bytes) -> None:
        checksum = zlib.crc32(data, zlib.crc32(kind))
        self._file.write(struct.pack(">I", len(data)) + kind + data)
        self._file.write(struct.pack(">I", checksum))


def encode_label_png(
    labels: UInt8[np.ndarray, "height width"],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> bytes:
    """Return a whole label map as the contents of a PNG file.

    Args:
        labels: One id per pixel.
        colours: As for `LabelPngWriter`.
    """
    file = io.BytesIO()
    height, width = labels.shape
    writer = LabelPngWriter(file, (height, width), colours)
    writer.write(labels)
    writer.close()
    return file.getvalue()
