"""Photographs with one class each: a prepared set, or a folder as ImageNet has it.

    FOLDER/train/CLASS/1.jpg           nested or not
    FOLDER/val/CLASS/2.jpg

Classes are named by the folders of train; their number is the place among the sorted
names.
"""

from pathlib import Path
from typing import Any

from segnext_jax.datasets.file_tree import walk_files
from segnext_jax.datasets.folder import IMAGE_SUFFIXES
from segnext_jax.datasets.prepared import is_prepared, read_metadata, resolve_data_dir
from segnext_jax.datasets.resolve import FOLDER, own_prepared_dir

TRAIN_SPLIT, VAL_SPLIT = "train", "val"


def photograph_classes(data: Any) -> tuple[str, ...]:
    """Return the names of the class folders, in the order of their numbers.

    Args:
      data: The section `data` of a configuration (segnext_jax/config/fields.py).

    Raises:
      FileNotFoundError: If the folder is missing, or the set is not prepared.
      ValueError: If the folder has no classes, or the prepared set has masks instead of
        classes.
    """
    if data.name == FOLDER:
        folder = Path(data.folder).expanduser() / TRAIN_SPLIT
        if not folder.is_dir():
            raise FileNotFoundError(
                "config.data.folder must name a folder that holds train/CLASS/*.jpg "
                f"and val/CLASS/*.jpg: {folder} does not exist."
            )
        classes = tuple(sorted(p.name for p in folder.iterdir() if _is_class(p)))
        if len(classes) < 2:
            raise ValueError(
                f"{folder} must hold a folder for each of at least two classes: got "
                f"{len(classes)}."
            )
        return classes
    folder = prepared_photographs_dir(data)
    classes = read_metadata(folder).get("synsets")
    if classes is None:
        raise ValueError(
            f"{folder} must hold photographs with one class each: it holds masks. "
            "Set config.data.name to imagenet, or prepare a set with "
            "segnext-jax prepare imagenet --name=NAME."
        )
    return tuple(classes)


def prepared_photographs_dir(data: Any) -> Path:
    """Return the folder of a prepared set.

    Raises:
      FileNotFoundError: If the set is not prepared.
    """
    folder = own_prepared_dir(data.name, data.data_dir)
    if not is_prepared(folder):
        name = "" if data.name == "imagenet" else f" --name={data.name}"
        raise FileNotFoundError(
            f"data set {data.name!r} is not prepared in {folder}. Prepare it: "
            f"segnext-jax prepare imagenet --raw_dir=FOLDER{name} "
            f"--data_dir={resolve_data_dir(data.data_dir)}"
        )
    return folder


def find_photographs(folder: Path, classes: tuple[str, ...]) -> list[str]:
    """List the photographs of one split, in the order of classes and names.

    Args:
      folder: The split's folder.
      classes: The names that its folders may have.

    Returns:
      Paths below the folder, "CLASS/1.jpg".

    Raises:
      FileNotFoundError: If the folder is missing.
      ValueError: If the folder holds no photograph, or has a class that is not in
        ``classes``.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} must hold CLASS/*.jpg: it does not exist. Make it."
        )
    found = sorted(path.name for path in folder.iterdir() if _is_class(path))
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise ValueError(
            f"the class folders of {folder} must be among the {len(classes)} classes "
            f"of the network: {unknown[0]!r} is not ({len(unknown)} such folders). "
            "Complete train, or begin a new run."
        )
    names = [
        path.relative_to(folder).as_posix()
        for name in found
        for path in walk_files(folder / name)
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not names:
        raise ValueError(
            f"{folder} must hold photographs ({', '.join(IMAGE_SUFFIXES)}): none was "
            "found."
        )
    return names


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
