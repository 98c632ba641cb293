"""Files of an official download: which mask belongs to which photograph."""

import dataclasses
from pathlib import Path


class PreparationError(ValueError):
    """A preparation that cannot go on, for a reason that the user can remove."""


@dataclasses.dataclass(frozen=True)
class RawExample:
    """One photograph of the official download and its mask.

    Attributes:
        image_id: Name of the photograph, unique within the split.
        image: Its file.
        label: The file of its mask.
    """

    image_id: str
    image: Path
    label: Path


def match_pairs(
    images_dir: Path,
    labels_dir: Path,
    *,
    image_ending: str | tuple[str, ...] = (".jpg", ".png"),
    label_ending: str = ".png",
) -> list[RawExample]:
    """Match the photographs and masks of two folders by name.

    Args:
        images_dir: Folder of photographs, nested or not.
        labels_dir: Folder of masks, with the same paths below it.
        image_ending: What the names of photographs end with, cut off for the match.
        label_ending: What the names of masks end with, likewise.

    Returns:
        The pairs in the order of their names.

    Raises:
        PreparationError: A photograph has no mask, or a mask no photograph.
    """
    images = _files_by_name(images_dir, image_ending)
    labels = _files_by_name(labels_dir, label_ending)
    for present, absent, kind in ((images, labels, "mask"), (labels, images, "photo")):
        if missing := sorted(present.keys() - absent.keys()):
            raise PreparationError(
                f"{present[missing[0]]} has no {kind} in "
                f"{labels_dir if kind == 'mask' else images_dir} ({len(missing)} such "
                "files). Complete the folder (is the archive unpacked whole?)."
            )
    return [RawExample(name, images[name], labels[name]) for name in sorted(images)]


def read_file(path: Path) -> bytes:
    """Read a file whole.

    Args:
        path: The file.

    Returns:
        Its contents.

    Raises:
        PreparationError: There is no such file.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PreparationError(
            f"missing file: {path}. Complete the folder (is the archive unpacked "
            "whole?)."
        ) from None


def _files_by_name(folder: Path, ending: str | tuple[str, ...]) -> dict[str, Path]:
    endings = (ending,) if isinstance(ending, str) else ending
    return {
        path.relative_to(folder).as_posix().removesuffix(end): path
        for end in endings
        for path in folder.rglob(f"*{end}")
    }
