"""Write files and folders whole or not at all.

A file or folder is written under a hidden name beside its own name, in the same file
system. At the end it is renamed, which replaces an older one in one step. What belongs
into a bucket is written into a local folder first; see `segnext_jax.cli.storage`.
"""

import contextlib
import errno
import json
import math
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

from segnext_jax.cli import storage

# Errors of a disk that takes no more; the system raises them without a file's name.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], *, is_durable: bool = False
) -> Iterator[pathlib.Path]:
    """Yield a path to write to, which becomes ``path`` when the block ends.

    If the block raises, what was there stays. Folders above are made. A link is
    followed; permissions of a file that is replaced are kept.

    Args:
      path: The file.
      is_durable: Whether the content must survive a loss of power as soon as the name
        does: it is brought to the disk first.
    """
    path = storage.as_path(path)
    if storage.is_bucket(path):
        with storage.staged(path) as partial, naming(path, partial):
            yield partial
        return
    path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with naming(path, partial):
            yield partial
        if path.exists():
            shutil.copymode(path, partial)
        if is_durable:
            synchronise(partial)
        partial.replace(path)
        if is_durable:
            synchronise(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield an empty folder to write into, which becomes ``path`` when the block ends.

    If the block raises, what was there stays; else the new folder replaces it.

    Args:
      path: The folder. The caller decides whether it may be replaced.
    """
    path = storage.as_path(path)
    if storage.is_bucket(path):
        with storage.staged(path, is_folder=True) as partial, naming(path, partial):
            yield partial
        return
    path = pathlib.Path(os.path.realpath(path))
    partial = _partial(path)
    old = partial.with_name(partial.name + ".old")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        with naming(path, partial):
            yield partial
        if path.exists():
            path.replace(old)
        partial.replace(path)
    finally:
        _remove(partial)
        if old.exists() and not path.exists():
            old.replace(path)
        _remove(old)


@contextlib.contextmanager
def naming(path: pathlib.Path, partial: pathlib.Path | None = None) -> Iterator[None]:
    """Let errors name what was being written.

    Args:
      path: The file or folder.
      partial: Its hidden name, which no user knows.
    """
    try:
        yield
    except (OSError, ValueError, FloatingPointError) as error:
        hidden = str(partial or path)
        error.args = tuple(
            part.replace(hidden, str(path)) if isinstance(part, str) else part
            for part in error.args
        )
        if not isinstance(error, OSError):
            raise
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(hidden, str(path))
        if error.errno not in NO_ROOM or error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def reason(error: Exception) -> str:
    """Return why something could not be written, as the system says it."""
    # Orbax writes by tensorstore, whose errors are texts.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def write_json(path: pathlib.Path, values: Any, indent: int | None = None) -> None:
    """Write a JSON file as a whole or not at all, so that it lasts."""
    with whole_file(path, is_durable=True) as partial:
        partial.write_text(to_json(values, indent))


def to_json(values: Any, indent: int | None = None) -> str:
    """Return JSON text, with null for what JSON has no number for: nan, infinity."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    is_number = not isinstance(values, float) or math.isfinite(values)
    return values if is_number else None


def _remove(folder: pathlib.Path) -> None:
    # After an error, threads of a library may still write into it for a moment.
    for seconds in (0, 0.1, 0.3, 1):
        time.sleep(seconds)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break


def _partial(path: pathlib.Path) -> pathlib.Path:
    """Return the hidden name: this process's alone, with the same suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def synchronise(path: pathlib.Path) -> None:
    """Return when what was written into a file or a folder is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows keeps folders itself, and opens none.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
