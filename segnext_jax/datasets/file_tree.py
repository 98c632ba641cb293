"""All files below a folder, links followed."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield what lies below a folder and is not hidden, in the order of names.

    Links are followed: data sets are large, and often lie elsewhere. One to a folder
    that it lies in is not, or there would be no end.

    Args:
      folder: The folder.

    Yields:
      Files and whatever else is no folder: pipes, devices, links to nothing.

    Raises:
      OSError: If a folder cannot be read.
      ValueError: If a name is not UTF-8, since reports and prepared sets could not hold
        the name.
    """
    yield from _walk(folder, ())


def comparable_name(name: str) -> str:
    """Return a name as it compares with others: macOS decomposes letters (NFD).

    Args:
      name: A name or path.
    """
    return unicodedata.normalize("NFC", name)


def check_utf8(path: Path) -> None:
    """Refuse a path that is not UTF-8.

    Args:
      path: The path.

    Raises:
      ValueError: If the path is not UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"names of files must be UTF-8: {os.fsencode(path)!r} is not. Rename the "
            "file (convmv -f latin1 -t utf8 -r --notest FOLDER)."
        ) from None


def _walk(folder: Path, above: tuple[os.stat_result, ...]) -> Iterator[Path]:
    status = folder.stat()
    if any(os.path.samestat(status, one) for one in above):
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    # Hidden files are not photographs, whatever they are called (._1.jpg).
    for entry in (e for e in found if not e.name.startswith(".")):
        path = folder / entry.name
        check_utf8(path)
        if entry.is_dir():
            yield from _walk(path, (*above, status))
        else:
            yield path
