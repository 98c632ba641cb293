"""Fetch one file over HTTP: with progress, resumed where it was cut, verified."""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

from segnext_jax.cli.command import first_line
from segnext_jax.cli.progress import SECONDS_PER_LINE, Progress

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

TIMEOUT_SECONDS = 30.0
# Connections in a row that may break off without a byte before the download gives up.
_MAX_FRUITLESS = 3
_PAUSE_SECONDS = 1.0
_BLOCK_BYTES = 1 << 20
# Answers: the bytes that were asked for; the file has no such bytes.
_PARTIAL, _NO_SUCH_RANGE = 206, 416


def download(url: str, path: pathlib.Path, checksum: str = "") -> None:
    """Fetch a file unless it is there; go on with an interrupted download.

    The file gets its name when it is whole and verified. Until then it grows as
    ``path`` with ``.part`` added, which stays if the download is interrupted. Another
    process that fetches the same file waits for this one, and then finds the file.

    Args:
      url: Its address; redirections are followed.
      path: Where it is to be. Folders above are made.
      checksum: ``"sha256:"`` (or md5, sha1) and the digits that its checksum begins
        with. Empty: it is not verified, but for its length.

    Raises:
      ValueError: If the file cannot be fetched, the disk has no room for it, or its
        checksum is another one.
    """
    partial = path.with_name(path.name + ".part")
    with alone(partial) as file:
        file.seek(0, os.SEEK_END)
        if path.exists():  # Another process has fetched it meanwhile.
            partial.unlink(missing_ok=True)
            return
        try:
            _fetch(url, file, _Notes(path.with_name(path.name + ".part.json")))
        except OSError as error:
            if not file.tell():
                partial.unlink()
            raise _refusal(url, path, error) from error
        fault = checksum_fault(partial, checksum)
        if fault:
            partial.unlink()
            raise ValueError(f"{url} is not the file that it was: {fault}.")
        partial.replace(path)


@contextlib.contextmanager
def alone(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a file to append to when no other process has it so, where that is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # Given back when the file is closed.
        yield file


def checksum_fault(path: pathlib.Path, checksum: str) -> str:
    """Return how a file differs from its checksum; empty if it does not."""
    if not checksum:
        return ""
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found.startswith(expected):
        return ""
    begins = "begin with" if len(expected) < len(found) else "be"
    return f"its {algorithm} checksum must {begins} {expected}: got {found}"


class _Notes:
    """What is known of the file that a partial one is the beginning of."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def write(self, values: dict[str, Any]) -> None:
        self._path.write_text(json.dumps(values))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _fetch(url: str, file: IO[bytes], notes: _Notes) -> None:
    """Write the rest of a file; connections that break off are made again."""
    fruitless = 0
    while True:
        before = file.tell()
        try:
            if _receive(url, file, notes):
                notes.remove()
                return
            error = ConnectionError("the connection broke off")
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, http.client.HTTPException, OSError) as cause:
            if not _is_of_the_network(cause):
                raise
            # URLError wraps what the system says, as an error or as a text.
            error = getattr(cause, "reason", None)
            if not isinstance(error, Exception):
                error = cause if error is None else ConnectionError(str(error))
        fruitless = fruitless + 1 if file.tell() <= before else 0
        # If no byte has come at all, waiting does not help.
        if fruitless == _MAX_FRUITLESS or not file.tell():
            raise ConnectionError(_said(error)) from error
        time.sleep(_PAUSE_SECONDS)


def _receive(url: str, file: IO[bytes], notes: _Notes) -> bool:
    """Append what one connection gives; return whether the file is whole."""
    begun = notes.read()
    validator = str(begun.get("validator") or "") if begun.get("url") == url else ""
    if not validator:  # Nothing tells whether the server still has the same file.
        file.truncate(0)
        file.seek(0)
    request = urllib.request.Request(url, headers={"User-Agent": "segnext_jax"})
    if file.tell():
        request.add_header("Range", f"bytes={file.tell()}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != _NO_SUCH_RANGE:
                raise
        notes.remove()
        return file.tell() == begun.get("size") or _receive(url, file, notes)
    with response:
        if response.status != _PARTIAL:
            file.truncate(0)
            file.seek(0)
        if response.headers.get_content_type() == "text/html":
            raise urllib.error.HTTPError(
                *(url, response.status, "a web page came, not the file"),
                *(response.headers, None),
            )
        length: str | None = response.headers.get("Content-Length")
        rest = None if length is None else int(length)
        size = None if rest is None else file.tell() + rest
        etag = response.headers.get("ETag", "")
        # A weak validator does not promise the same bytes.
        is_strong = etag and not etag.startswith("W/")
        modified = response.headers.get("Last-Modified")
        validator = etag if is_strong else modified
        notes.write({"url": url, "validator": validator, "size": size})
        _check_room(pathlib.Path(file.name).parent, rest)
        _copy(response, file, size)
        return size is None or file.tell() == size


def _copy(response: Any, file: IO[bytes], size: int | None) -> None:
    """Append what a response holds, and show how far it is."""
    name = pathlib.Path(file.name).name.removesuffix(".part")
    done = _kib(file.tell())
    progress = Progress(
        _kib(size or 0), done, f"download {name} (KiB)", SECONDS_PER_LINE
    )
    try:
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            file.flush()
            before, done = done, _kib(file.tell())
            progress.advance(done - before)
            if size:
                progress.report(done, {"MB": f"{file.tell() / 1e6:.1f}"})
    finally:
        progress.close()


def _kib(num_bytes: int) -> int:
    return -(-num_bytes // 1024)


def _check_room(folder: pathlib.Path, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise OSError(
            errno.ENOSPC,
            f"it takes {needed / 1e6:,.0f} MB more, and {free / 1e6:,.0f} are free",
        )


def _is_of_the_network(error: BaseException) -> bool:
    """Tell connections that break off from a disk that takes no more."""
    is_http = isinstance(error, urllib.error.URLError | http.client.HTTPException)
    return is_http or isinstance(error, ConnectionError | TimeoutError)


def _said(error: Any) -> str:
    """Return what the system says of a connection, without the number of the error."""
    return getattr(error, "strerror", None) or first_line(error)


def _refusal(url: str, path: pathlib.Path, error: OSError) -> ValueError:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answers {error.code}, {error.reason}"
        return ValueError(f"{url} could not be fetched: {reason}.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = error.strerror or first_line(error)
        return ValueError(
            f"there must be room for {path}: {reason}. Make room in {path.parent}; the "
            "same command then goes on."
        )
    is_begun = path.with_name(path.name + ".part").exists()
    more = " The same command goes on where it was interrupted." if is_begun else ""
    return ValueError(f"{url} could not be fetched: {first_line(error)}.{more}")
