"""Archives that the licence lets everybody fetch: address, size, checksum."""

import dataclasses
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from segnext_jax.cli.download import checksum_fault, download
from segnext_jax.datasets.pairs import PreparationError


@dataclasses.dataclass(frozen=True)
class Download:
    """One archive of a data set.

    Attributes:
      url: Its address.
      size_bytes: About how large it is, for the check of free space.
      checksum: "md5:...", "sha1:..." or "sha256:..." as its users publish it; empty
        where none is known.
    """

    url: str
    size_bytes: int
    checksum: str = ""


def fetch(downloads: Sequence[Download], folder: Path) -> list[Path]:
    """Fetch archives that are not yet in a folder; see `segnext_jax.cli.download`.

    The archives stay packed: preparations read members from an archive.

    Args:
      downloads: What to fetch.
      folder: Where the archives are kept, under their own names.

    Returns:
      The archives on disk, in the same order.

    Raises:
      PreparationError: If a server cannot be reached, or sends something else than the
        file.
    """
    paths = []
    for archive in downloads:
        path = folder / urllib.parse.urlsplit(archive.url).path.rsplit("/", 1)[-1]
        if path.exists():
            fault = checksum_fault(path, archive.checksum)
            if fault:
                raise PreparationError(
                    f"{path} is not {archive.url}: {fault}. Delete it and start again."
                )
        else:
            sys.stdout.write(
                f"downloading {archive.url}, about {archive.size_bytes / 1e9:.1f} GB\n"
            )
            sys.stdout.flush()
            try:
                download(archive.url, path, archive.checksum)
            except ValueError as error:
                raise PreparationError(str(error)) from error
        paths.append(path)
    return paths
