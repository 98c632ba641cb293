"""Archives that the licence lets everybody fetch: address, size, checksum."""

import dataclasses
import hashlib
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnext_jax.datasets.pairs import PreparationError, one_line


@dataclasses.dataclass(frozen=True)
class Download:
    """One archive of a data set.

    Attributes:
        url: Its address.
        size_bytes: About how large it is, for the check of free space.
        checksum: "md5:..." or "sha1:..." as its users publish it; empty where none is
            known (TFDS then still checks those that are in its own lists).
    """

    url: str
    size_bytes: int
    checksum: str = ""


def fetch(downloads: Sequence[Download], manager: Any) -> list[Path]:
    """Fetch archives that are not yet in TFDS's folder of downloads.

    They are not unpacked: members are read from the archive.

    Args:
        downloads: What to fetch.
        manager: TFDS's download manager.

    Returns:
        The archives on disk, in the same order.

    Raises:
        PreparationError: A server cannot be reached, or what came is not what was
            asked for.
    """
    paths = []
    for download in downloads:
        try:
            # TFDS tries ten times, for minutes: ask once whether there is a way at all.
            request = urllib.request.Request(download.url, method="HEAD")
            urllib.request.urlopen(request, timeout=20).close()
            sys.stdout.write(
                f"downloading {download.url}, about {download.size_bytes / 1e9:.1f} GB "
                "(unless it is there already)\n"
            )
            sys.stdout.flush()
            path = Path(manager.download(download.url))
        except Exception as error:
            # TFDS lets through whatever requests, urllib and its promises raise.
            raise PreparationError(
                f"could not download {download.url} ({one_line(error)})."
            ) from error
        if download.checksum:
            _check(path, download)
        paths.append(path)
    return paths


def _check(path: Path, download: Download) -> None:
    algorithm, _, expected = download.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise PreparationError(
            f"{path}: the {algorithm} checksum of {download.url} must be {expected}: "
            f"got {found}. Delete the file and start again."
        )
