"""Archives as downloaded: their members are read where they lie, nothing is unpacked.

An archive is indexed once; a member is then one `pread` (and one inflation) that any
thread may do. Only a compressed tar, which has no index, is inflated, into a file
without a name that vanishes with the process. As nothing is ever written under a
member's name, no archive can write outside its folder.
"""

import bz2
import dataclasses
import gzip
import io
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from segnext_jax.datasets.pairs import MAX_FILE_BYTES, PreparationError

_INFLATERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Data sets hardly shrink; their masks, by thirty at most.
_MAX_INFLATION = 100
_INFLATION_BLOCK = 1 << 20
# Tars in a tar: ImageNet has one level.
_MAX_DEPTH = 3
_BROKEN = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)
_BROKEN += (tarfile.TarError, lzma.LZMAError, struct.error)
# zipfile raises it for versions and compressions that it does not know.
_BROKEN += (NotImplementedError,)
_BROKEN += (OverflowError, MemoryError, RecursionError)

# A folder of an archive: `ArchiveMember`s and further such folders by name.
Index = dict[str, Any]


class Handle:
    """An open file that its members share, closed when the last of them is gone."""

    def __init__(self, descriptor: int) -> None:
        """Take over a file descriptor."""
        self.descriptor = descriptor

    def __del__(self) -> None:
        """Close it."""
        os.close(self.descriptor)


@dataclasses.dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One file of an archive.

    Attributes:
      archive: The open file that holds it.
      origin: The archive's path, for messages.
      path: The member's path inside.
      offset: Where its bytes begin; for a zip, its local header.
      stored_size: Number of bytes that it takes in the archive.
      size: Number of bytes that it holds.
      zip_method: Compression in a zip; None in a tar.
      checksum: Its CRC-32 in a zip.
    """

    archive: Handle
    origin: str
    path: str
    offset: int
    stored_size: int
    size: int
    zip_method: int | None = None
    checksum: int = 0

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        """Return the path through the archive."""
        return f"{self.origin}/{self.path}"

    def read_bytes(self, limit: int | None = None) -> bytes:
        """Read the member.

        Args:
          limit: Number of bytes from its beginning that are wanted; None for all.

        Raises:
          PreparationError: If the archive ends early, is damaged or is encrypted.
        """
        try:
            contents = self._read(limit)
        except _BROKEN as error:
            raise PreparationError(
                f"{self}: cannot be read from the archive ({error}). Download the "
                "archive again, or unpack it by hand."
            ) from None
        expected = self.size if limit is None else min(limit, self.size)
        if len(contents) != expected or (
            limit is None
            and self.zip_method is not None
            and zlib.crc32(contents) != self.checksum
        ):
            raise PreparationError(
                f"{self}: is damaged in the archive (length or checksum differ). "
                "Download the archive again."
            )
        return contents

    def _read(self, limit: int | None) -> bytes:
        file, offset = self.archive.descriptor, self.offset
        stored = offset + (self.size if self.zip_method is None else self.stored_size)
        if self.size > MAX_FILE_BYTES or stored > os.fstat(file).st_size:
            raise ValueError(
                f"its header promises {self.size:,} bytes, more than "
                f"{MAX_FILE_BYTES:,} or than the archive holds"
            )
        if self.zip_method is not None:
            header = os.pread(file, _ZIP_LOCAL_HEADER.size, offset)
            _, name_size, extra_size = _ZIP_LOCAL_HEADER.unpack(header)
            offset += _ZIP_LOCAL_HEADER.size + name_size + extra_size
        if self.zip_method == zipfile.ZIP_DEFLATED:
            # One byte more than promised tells that there is more.
            size, stored_size = self.size + 1, self.stored_size
            if limit is not None:
                size, stored_size = limit, min(stored_size, limit + 1024)
            stored = _read_at(file, offset, stored_size)
            return zlib.decompressobj(-15).decompress(stored, size) if size else b""
        if self.zip_method in (None, zipfile.ZIP_STORED):
            size = self.size if limit is None else min(limit, self.size)
            return _read_at(file, offset, size)
        raise ValueError(f"its compression, {self.zip_method}, is not read here")


def is_archive(path: Path) -> bool:
    """Return whether a path names an archive by its suffix."""
    return path.name.lower().endswith(
        (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
    )


def index_archive(path: Path, scratch_dir: Path) -> Index:
    """List the members of a zip or tar, also of tars inside a tar.

    Args:
      path: The archive; its first bytes tell what it is, not its name.
      scratch_dir: Where a compressed tar is inflated.

    Returns:
      Its members, as a tree of folders.

    Raises:
      PreparationError: If the file is no archive, or only a part of one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
            if start == b"PK":
                return _index_zip(file, str(path))
            if start not in _INFLATERS:
                return _index_whole_tar(file, str(path))
        with (
            _INFLATERS[start](path) as packed,
            tempfile.TemporaryFile(dir=scratch_dir) as file,
        ):
            _inflate(packed, file, path.stat().st_size)
            return _index_whole_tar(file, str(path))
    except _BROKEN as error:
        if isinstance(error, PreparationError) or (
            isinstance(error, OSError) and error.errno is not None
        ):
            raise
        raise PreparationError(
            f"{path}: is no whole zip or tar archive ({error}). Download it again."
        ) from None


def _inflate(packed: Any, file: Any, packed_size: int) -> None:
    """Copy what a compressed file holds, up to a bound.

    Raises:
      ValueError: If the file holds far more than data sets do.
    """
    left = packed_size * _MAX_INFLATION + 64 * _INFLATION_BLOCK
    while block := packed.read(_INFLATION_BLOCK):
        left -= len(block)
        if left < 0:
            raise ValueError(f"it inflates to {_MAX_INFLATION} times its size and more")
        file.write(block)
    file.flush()


def _index_zip(file: IO[bytes], origin: str) -> Index:
    index: Index = {}
    handle = Handle(os.dup(file.fileno()))
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise PreparationError(
                    f"{origin}: is encrypted. Unpack it by hand and name the folder."
                )
            _add(
                index,
                ArchiveMember(
                    archive=handle,
                    origin=origin,
                    path=info.filename,
                    offset=info.header_offset,
                    stored_size=info.compress_size,
                    size=info.file_size,
                    zip_method=info.compress_type,
                    checksum=info.CRC,
                ),
            )
    return index


def _index_whole_tar(file: IO[bytes], origin: str) -> Index:
    handle = Handle(os.dup(file.fileno()))
    return _index_tar(handle, origin, "", 0, os.fstat(handle.descriptor).st_size)


def _index_tar(
    handle: Handle, origin: str, prefix: str, start: int, size: int, depth: int = 0
) -> Index:
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} tars within each other")
    index: Index = {}
    window = io.BufferedReader(_Window(handle.descriptor, start, size))
    with tarfile.TarFile(fileobj=window) as archive:
        for info in archive:
            if not info.isreg():
                continue
            path, offset = prefix + info.name, start + info.offset_data
            # A negative size would lead back to the same header for ever.
            if info.size < 0 or offset + info.size > start + size:
                raise tarfile.ReadError("unexpected end of data")
            if info.name.endswith(".tar"):
                folder = path.removesuffix(".tar")
                inner = _index_tar(
                    handle, origin, f"{folder}/", offset, info.size, depth + 1
                )
                _graft(index, inner)
            else:
                _add(
                    index,
                    ArchiveMember(handle, origin, path, offset, info.size, info.size),
                )
        # Where a header is cut, tarfile stops without a word.
        end = os.pread(handle.descriptor, tarfile.BLOCKSIZE, start + archive.offset)
        if any(end) or 0 < size - archive.offset < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")
    return index


class _Window(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(min(len(buffer), self._size - self._position), 0)
        data = os.pread(self._file, wanted, self._start + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read_at(file: int, offset: int, size: int) -> bytes:
    """Read exactly `size` bytes unless the file ends (one call gives at most 2 GiB)."""
    parts = []
    while size and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _add(index: Index, member: ArchiveMember) -> None:
    *folders, name = _parts(member.path)
    for folder in folders:
        below = index.setdefault(folder, {})
        if not isinstance(below, dict):
            return
        index = below
    index[name] = member


def _graft(index: Index, other: Index) -> None:
    for name, entry in other.items():
        below = index.get(name)
        if isinstance(entry, dict) and isinstance(below, dict):
            _graft(below, entry)
        else:
            index[name] = entry


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".", "..")]
