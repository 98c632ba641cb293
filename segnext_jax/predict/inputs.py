"""Which images and videos the words of a command line mean."""

import contextlib
import dataclasses
import glob
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from absl import logging

from segnext_jax.cli import storage
from segnext_jax.datasets.file_tree import check_utf8, walk_files
from segnext_jax.datasets.folder import few

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".avif"),
    *(".ppm", ".pgm", ".gif"),
)
# Photographs that OpenCV does not read: they are inputs, too, and are reported as such.
_UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".raw", ".dng", ".cr2"),
    *(".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclasses.dataclass(frozen=True)
class Input:
    """One file to predict.

    Attributes:
      path: Where it is.
      name: Where its outputs go below their folders: its path below the folder that
        was given, without the suffix.
    """

    path: pathlib.Path
    name: pathlib.PurePath

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(
    words: Sequence[str], output_folders: Sequence[pathlib.Path] = ()
) -> list[Input]:
    """Return all files in the order of the words, those of a folder by name.

    A file is taken whatever its suffix; folders, with all that lies below, linked
    folders too, and patterns give images and videos by their suffixes, without hidden
    ones and without the outputs of an earlier run. What else they hold is logged.

    Args:
      words: Files, folders, or patterns (``photos/**/*.jpg``), also in buckets.
      output_folders: Folders of outputs: left out of a folder that holds them.

    Raises:
      ValueError: If a word names no file, or a file's name is not UTF-8.
    """
    found: dict[pathlib.Path, Input] = {}
    for word in words:
        path = storage.as_path(word).expanduser()
        check_utf8(path)
        if path.is_file():
            inputs = [_input(path, path.parent)]
        elif path.is_dir():
            files = walk_files(path)
            if storage.is_bucket(path):
                files = (path / name for name in storage.listed(path))
            inputs = list(_below(files, path, output_folders))
            if not inputs:
                raise ValueError(
                    f"an input folder must hold images or videos: {path} and the "
                    f"folders in it have none ({' '.join(IMAGE_SUFFIXES)}; "
                    f"{' '.join(VIDEO_SUFFIXES)})."
                )
        elif glob.has_magic(word):
            matches = map(pathlib.Path, sorted(glob.glob(word, recursive=True)))
            if storage.is_bucket(path):
                matches = storage.matching(path)
            inputs = list(_below(matches, _fixed_part(path), output_folders))
            if not inputs:
                raise ValueError(
                    f"an input pattern must match images or videos: {word} matches "
                    "none. Quote it if the shell is not to expand it."
                )
        else:
            raise ValueError(
                f"an input must be a file, a folder or a pattern: {word} does not "
                "exist."
            )
        for item in inputs:
            found.setdefault(item.path.resolve(), item)
    return list(found.values())


def read_list(name: str) -> Iterator[Input]:
    """Return the files of a list, one a line; they are read as they are asked for.

    Outputs lie below their folders as the paths say, without ``/`` and ``..``.

    Args:
      name: A file; ``-`` for standard input.

    Raises:
      ValueError: If there is no such file, or the name of one in it is not UTF-8.
    """
    # A pipe, <(find ...), can be opened once.
    path = storage.as_path(name)
    if name != "-" and (not path.exists() or path.is_dir()):
        raise ValueError(
            f"--list must name a file with a path on each line, or be -: got {name}."
        )
    return _read_list(name)


def _read_list(name: str) -> Iterator[Input]:
    opened = sys.stdin.buffer if name == "-" else storage.as_path(name).open("rb")
    with contextlib.closing(opened) as lines:
        for line in lines:
            path = storage.as_path(os.fsdecode(line.rstrip(b"\r\n")))
            check_utf8(path)
            if path.name:
                text = storage.key_of(path) if storage.is_bucket(path) else path
                parts = pathlib.PurePath(os.path.normpath(text)).parts
                below = (part for part in parts if part not in (path.anchor, ".."))
                yield Input(path, pathlib.PurePath(*below).with_suffix(""))


def _below(
    paths: Iterable[pathlib.Path],
    root: pathlib.Path,
    output_folders: Sequence[pathlib.Path],
) -> Iterator[Input]:
    outputs = {folder.resolve() for folder in output_folders}
    outputs = {folder for folder in outputs if root.resolve() in folder.parents}
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *_UNREAD_SUFFIXES)
    others = []
    for path in paths:
        check_utf8(path)
        is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        is_folder = not storage.is_bucket(path) and path.is_dir()
        if is_hidden or is_folder or not outputs.isdisjoint(path.resolve().parents):
            continue
        if path.suffix.lower() in known:
            yield _input(path, root)
        else:
            others.append(str(path))
    if others:
        logging.info("Neither images nor videos, by their suffix: %s.", few(others))


def _input(path: pathlib.Path, root: pathlib.Path) -> Input:
    return Input(path, path.relative_to(root).with_suffix(""))


def _fixed_part(pattern: pathlib.Path) -> pathlib.Path:
    """Return the folders of a pattern before the first that varies."""
    return next(path for path in pattern.parents if not glob.has_magic(str(path)))
