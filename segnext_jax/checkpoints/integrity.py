"""Size and CRC-32 of each file of a folder, kept in the folder: is it as written?"""

import json
import pathlib
import zlib

from segnext_jax.cli.whole_files import write_json

CHECKSUMS_FILE = "checksums.json"


def is_sealed(folder: pathlib.Path) -> bool:
    """Return whether a folder has checksums."""
    return (folder / CHECKSUMS_FILE).is_file()


def seal(folder: pathlib.Path) -> None:
    """Write the checksums of a folder's files, as a whole or not at all.

    Raises:
      FileNotFoundError: If a file is deleted meanwhile.
    """
    checksums = {name: _checksum(folder / name) for name in _files(folder)}
    write_json(folder / CHECKSUMS_FILE, checksums)


def differing_file(folder: pathlib.Path) -> str:
    """Return what of a sealed folder is not as it was written; empty if nothing is."""
    try:
        checksums = json.loads((folder / CHECKSUMS_FILE).read_text())
    except (OSError, ValueError):
        checksums = None
    if not checksums or not isinstance(checksums, dict):
        return f"{CHECKSUMS_FILE} cannot be read"
    for name, expected in checksums.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _checksum(folder / name) != expected:
            return f"{name} is not what was written"
    return ""


def _files(folder: pathlib.Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def _checksum(path: pathlib.Path) -> list[int]:
    """Return size and CRC-32 of a file."""
    checksum = size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
    return [size, checksum]
