"""Size and CRC-32 of each file of a folder, kept in the folder: is it as written?"""

import json
import os
import pathlib
import zlib
from collections.abc import Collection

from segnext_jax.cli.whole_files import synchronise

CHECKSUMS_FILE = "checksums.json"


def is_sealed(folder: pathlib.Path) -> bool:
    """Return whether a folder has checksums."""
    return (folder / CHECKSUMS_FILE).is_file()


def seal(folder: pathlib.Path, without: Collection[str] = ()) -> None:
    """Write the checksums of a folder's files, and all of them to the disk.

    Args:
      folder: One that has not its final name yet.
      without: Names of files that will still change.
    """
    checksums = {
        name: _checksum(folder / name, is_synced=True)
        for name in _files(folder)
        if name not in without
    }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(checksums))
    synchronise(folder / CHECKSUMS_FILE)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            synchronise(path)


def differing_file(folder: pathlib.Path, without: Collection[str] = ()) -> str:
    """Return what of a sealed folder is not as it was written; empty if nothing is.

    Args:
      folder: The folder.
      without: Folders in it that need not be there.
    """
    try:
        checksums = json.loads((folder / CHECKSUMS_FILE).read_text())
    except (OSError, ValueError):
        checksums = None
    if not checksums or not isinstance(checksums, dict):
        return f"{CHECKSUMS_FILE} cannot be read"
    for name, expected in checksums.items():
        if name.partition("/")[0] in without:
            continue
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _checksum(folder / name) != expected:
            return f"{name} is not what was written"
    return ""


def _files(folder: pathlib.Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def _checksum(path: pathlib.Path, *, is_synced: bool = False) -> list[int]:
    """Return size and CRC-32 of a file; bring it to the disk if it is to be synced."""
    checksum = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
        if is_synced:
            os.fsync(file.fileno())
    return [size, checksum]
