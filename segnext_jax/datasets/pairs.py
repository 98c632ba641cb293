"""Files of an official download: which mask belongs to which photograph."""

import dataclasses
import stat
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

# Above the largest image that is decoded, 2^28 pixels of 8 bytes.
MAX_FILE_BYTES = 2**31


class PreparationError(ValueError):
    """A preparation that cannot go on, for a reason that the user can remove."""


@runtime_checkable
class RawFile(Protocol):
    """A file of a download: a `Path`, or a member of an archive."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    def read_bytes(self) -> bytes:
        """Read it whole; a member of an archive takes a number of bytes too."""
        ...


@runtime_checkable
class FolderOfFiles(Protocol):
    """A folder that lists all files below it: `raw_folders.RawFolder`."""

    def files(self) -> dict[str, RawFile]:
        """Return all files below this folder by their paths."""
        ...


@dataclasses.dataclass(frozen=True)
class RawExample:
    """One photograph of the official download and its mask.

    Attributes:
      image_id: Name of the photograph, unique within the split.
      image: Its file.
      label: The file of its mask.
    """

    image_id: str
    image: RawFile
    label: RawFile


def match_pairs(
    images_dir: Path | FolderOfFiles,
    labels_dir: Path | FolderOfFiles,
    *,
    image_ending: str | tuple[str, ...] = (".jpg", ".png"),
    label_ending: str = ".png",
    other_ending: str = "",
) -> list[RawExample]:
    """Match the photographs and masks of two folders by name.

    Args:
      images_dir: Folder of photographs, nested or not.
      labels_dir: Folder of masks, with the same paths below it.
      image_ending: What the names of photographs end with, cut off for the match.
      label_ending: What the names of masks end with, likewise.
      other_ending: What the names of masks must not end with; empty for nothing.

    Returns:
      The pairs in the order of their names.

    Raises:
      PreparationError: If a photograph has no mask, or a mask has no photograph.
    """
    images = files_by_name(images_dir, image_ending)
    labels = files_by_name(labels_dir, label_ending, other_ending)
    for present, absent, kind in ((images, labels, "mask"), (labels, images, "photo")):
        if missing := sorted(present.keys() - absent.keys()):
            raise PreparationError(
                f"{present[missing[0]]} has no {kind} in "
                f"{labels_dir if kind == 'mask' else images_dir} ({len(missing)} such "
                "files). Complete the folder (is the archive unpacked whole?)."
            )
    return [RawExample(name, images[name], labels[name]) for name in sorted(images)]


def files_by_name(
    folder: Path | FolderOfFiles, ending: str | tuple[str, ...], other_ending: str = ""
) -> dict[str, RawFile]:
    """List files by what their paths hold before an ending.

    Args:
      folder: The folder, nested or not.
      ending: What the files end with; others are left out.
      other_ending: What they must not end with; empty for nothing.

    Returns:
      The files by path in the folder, the ending cut off.
    """
    endings = (ending,) if isinstance(ending, str) else ending
    if isinstance(folder, Path):
        paths: dict[str, RawFile] = {
            path.relative_to(folder).as_posix(): path
            for end in endings
            for path in folder.rglob(f"*{end}")
        }
    else:
        paths = folder.files()
    return {
        path.removesuffix(end): file
        for end in endings
        for path, file in paths.items()
        if path.endswith(end) and not (other_ending and path.endswith(other_ending))
    }


def read_file(file: RawFile, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a file whole.

    Args:
      file: The file.
      max_bytes: How large it may be.

    Raises:
      PreparationError: If the file does not exist, is too large, or is a pipe, a device
        or a folder, which could be read without an end.
    """
    try:
        if isinstance(file, Path):
            check_regular(file)
        size = file_size(file)
        if size > max_bytes:
            raise PreparationError(
                f"{file}: must have at most {max_bytes:,} bytes: it has {size:,}. Is "
                "it the right file? Replace it."
            )
        return file.read_bytes()
    except FileNotFoundError:
        raise PreparationError(
            f"missing file: {file}. Complete the folder (is the archive unpacked "
            "whole?)."
        ) from None


def check_regular(path: Path) -> None:
    """Refuse what could be read for ever.

    Args:
      path: What is to be opened.

    Raises:
      FileNotFoundError: If the path does not exist.
      PreparationError: If the path is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise PreparationError(
            f"{path}: must be a regular file: it is a folder, a pipe or a device. "
            "Replace or remove it."
        )


def read_head(file: RawFile, num_bytes: int) -> bytes:
    """Read the first bytes of a file.

    Args:
      file: The file.
      num_bytes: How many bytes.

    Returns:
      Its first bytes, fewer if it is shorter.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(num_bytes)
    return cast(Any, file).read_bytes(num_bytes)


def file_size(file: RawFile) -> int:
    """Return the number of bytes of a file without reading it."""
    return file.stat().st_size if isinstance(file, Path) else getattr(file, "size", 0)


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks, its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
