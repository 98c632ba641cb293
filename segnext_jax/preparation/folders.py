"""Folders of an official download: on disk, in an archive, or in several of them."""

import abc
import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from segnext_jax.datasets.pairs import RawFile
from segnext_jax.preparation.archives import (
    ArchiveMember,
    Index,
    index_archive,
    is_archive,
)

# Downloads are found this many levels below the folder that the user names.
_SEARCH_DEPTH = 4


class RawFolder(abc.ABC):
    """A folder of raw files, wherever they lie.

    Hidden files (`.DS_Store`, `._1.jpg`) and `__MACOSX` are left out.
    """

    def __init__(self, path: str) -> None:
        """Bind the folder to its path, which is used in messages."""
        self._path = path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._path.rpartition("/")[2]

    def __str__(self) -> str:
        """Return the path, through an archive where it lies in one."""
        return self._path

    @abc.abstractmethod
    def children(self) -> dict[str, "RawFolder | RawFile"]:
        """Return files and folders by name, in the order of names."""

    def is_dir(self) -> bool:
        """Return whether the folder is there."""
        return True

    def __truediv__(self, path: str) -> "RawFolder":
        """Return a folder below this one; `is_dir()` says whether it is there."""
        folder: RawFolder = self
        for part in path.split("/"):
            below = folder.children().get(part)
            if not isinstance(below, RawFolder):
                return _Missing(f"{self}/{path}")
            folder = below
        return folder

    def file(self, path: str) -> RawFile | None:
        """Return a file below this folder, None if it is not there."""
        above, _, name = path.rpartition("/")
        folder = self / above if above else self
        found = folder.children().get(name)
        return None if isinstance(found, RawFolder) else found

    def files(self) -> dict[str, RawFile]:
        """Return all files below this folder by their paths."""
        found: dict[str, RawFile] = {}
        for name, child in self.children().items():
            if isinstance(child, RawFolder):
                for path, file in child.files().items():
                    found[f"{name}/{path}"] = file
            else:
                found[name] = child
        return found

    def find(self, *paths: str) -> Iterator["RawFolder"]:
        """Search this folder and those below it, the nearest first.

        Args:
          paths: Folders or files, relative to a folder that is searched for.

        Yields:
          The folders that hold all of them, at most four levels down.
        """
        level: list[RawFolder] = [self]
        for _ in range(_SEARCH_DEPTH + 1):
            for folder in level:
                if all((folder / p).is_dir() or folder.file(p) for p in paths):
                    yield folder
            level = [
                child
                for folder in level
                for child in folder.children().values()
                if isinstance(child, RawFolder)
            ]


class DiskFolder(RawFolder):
    """A folder on disk; archives in it may count as folders."""

    def __init__(
        self,
        path: Path,
        archive_names: Sequence[str] = (),
        scratch_dir: Path | None = None,
    ) -> None:
        """Bind the folder; nothing is read yet.

        Args:
          path: The folder.
          archive_names: Patterns of the archives that count as folders, "*.zip".
          scratch_dir: Where compressed tars are inflated; the folder itself if None.
        """
        super().__init__(str(path))
        self._disk_path = path
        self._archive_names = tuple(archive_names)
        self._scratch_dir = scratch_dir or path
        self._children: dict[str, RawFolder | RawFile] | None = None

    def __fspath__(self) -> str:
        """Return the path, so that `Path(folder)` works."""
        return str(self._disk_path)

    def children(self) -> dict[str, RawFolder | RawFile]:
        """List the folder once."""
        if self._children is None:
            with os.scandir(self._disk_path) as entries:
                self._children = {
                    entry.name: self._child(entry)
                    for entry in sorted(entries, key=lambda entry: entry.name)
                    if not _is_hidden(entry.name)
                }
        return self._children

    def _child(self, entry: os.DirEntry) -> RawFolder | RawFile:
        path = Path(entry.path)
        if entry.is_dir():
            return DiskFolder(path, self._archive_names, self._scratch_dir)
        if is_archive(path) and any(
            fnmatch.fnmatch(path.name, pattern) for pattern in self._archive_names
        ):
            return ArchiveFolder(path, self._scratch_dir)
        return path


class ArchiveFolder(RawFolder):
    """An archive; its index is read when it is first asked for."""

    def __init__(self, path: Path, scratch_dir: Path) -> None:
        """Bind the archive; compressed tars are inflated in the scratch folder."""
        super().__init__(str(path))
        self._archive, self._scratch_dir = path, scratch_dir
        self._inside: _InArchive | None = None

    def children(self) -> dict[str, RawFolder | RawFile]:
        """Return what is in the archive's first level."""
        if self._inside is None:
            index = index_archive(self._archive, self._scratch_dir)
            self._inside = _InArchive(str(self), index)
        return self._inside.children()


class SeveralFolders(RawFolder):
    """Folders and archives from different places, side by side."""

    def __init__(self, folders: Sequence[RawFolder]) -> None:
        """Bind the folders."""
        super().__init__(", ".join(map(str, folders)))
        self._folders = tuple(folders)

    def children(self) -> dict[str, RawFolder | RawFile]:
        """Return the folders by their whole paths."""
        return {str(folder): folder for folder in self._folders}


class _InArchive(RawFolder):
    def __init__(self, path: str, index: Index) -> None:
        super().__init__(path)
        self._children: dict[str, RawFolder | RawFile] = {
            name: _InArchive(f"{path}/{name}", entry)
            if isinstance(entry, dict)
            else cast(ArchiveMember, entry)
            for name, entry in sorted(index.items())
            if not _is_hidden(name)
        }

    def children(self) -> dict[str, RawFolder | RawFile]:
        return self._children


class _Missing(RawFolder):
    def is_dir(self) -> bool:
        return False

    def children(self) -> dict[str, RawFolder | RawFile]:
        return {}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
