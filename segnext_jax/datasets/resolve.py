"""Which data set a configuration means: one of the table, or a user's own.

A user's own set is a folder that is read as it is (`data.name="folder"`), or what
data/folder/prepare.py has made of one. Its classes are those that the configuration
names, else those of the folder's classes.txt or of the prepared set's metadata. A run
stores them in its configuration, so that the network knows them without the folder.
"""

import difflib
from pathlib import Path
from typing import Any

from segnext_jax.datasets import SPECS, get_spec
from segnext_jax.datasets.class_table import CLASSES_FILE, ClassTable, read_class_table
from segnext_jax.datasets.prepared import (
    damaged,
    is_prepared,
    read_metadata,
    resolve_data_dir,
)
from segnext_jax.datasets.spec import DatasetSpec

FOLDER = "folder"


def resolve_spec(data: Any) -> DatasetSpec:
    """Return the data set that a configuration means.

    Args:
      data: The section `data` of a configuration (segnext_jax/config/fields.py).

    Raises:
      FileNotFoundError: If the folder or its classes.txt is missing.
      ValueError: If no data set has this name, or its classes contradict each other.
    """
    if data.name in SPECS:
        return get_spec(data.name)
    return class_table(data).spec(data.name)


def class_table(data: Any) -> ClassTable:
    """Return the classes of a user's own data set.

    Args:
      data: The section `data` of a configuration, its name none of `SPECS`.

    Raises:
      FileNotFoundError: If the folder or its classes.txt is missing.
      ValueError: If no data set has this name, or classes.txt is wrong.
    """
    if data.classes:
        return ClassTable(
            tuple(data.classes), tuple(data.colours), tuple(data.ignore_colours)
        )
    if data.name == FOLDER:
        folder = Path(data.folder).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"config.data.folder must name a folder: {folder} does not exist."
            )
        return read_class_table(folder / CLASSES_FILE)
    folder = own_prepared_dir(data.name, data.data_dir)
    if not is_prepared(folder):
        raise ValueError(
            f"config.data.name must be one of {', '.join(SPECS)}, {FOLDER}, or a set "
            f"of your own that is prepared in {folder}: got {data.name!r}."
            f"{_suggestion(data.name)}"
        )
    return prepared_table(folder)


def prepared_table(folder: Path) -> ClassTable:
    """Return the classes that a prepared set names.

    Args:
      folder: Folder of the set, with its metadata.json.

    Raises:
      ValueError: If the set names no classes: the set is damaged, or has no masks.
    """
    metadata: Any = read_metadata(folder)
    classes, colours = metadata.get("classes"), metadata.get("colours")
    if not _are_classes(classes) or not _are_colours(colours):
        raise damaged(folder, ValueError("metadata.json lacks classes or colours"))
    return ClassTable(tuple(classes), tuple(map(tuple, colours)))


def _are_classes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_colours(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(colour, list) and all(type(level) is int for level in colour)
        for colour in value
    )


def faults_of(data: Any) -> list[str]:
    """Return what is wrong with the choice of a data set, one sentence each.

    Args:
      data: The section `data` of a configuration. The contents of a folder are not
        looked at before it is opened.
    """
    if data.name in SPECS:
        return [
            f"config.data.{field} is for sets of your own, and {data.name} is not: "
            'leave it out, or set config.data.name to "folder".'
            for field in ("folder", "classes", "zero_is_ignore", "id_map")
            if data[field]
        ]
    if data.classes:
        try:
            resolve_spec(data)
        except ValueError as error:
            return [str(error)]
    if data.name == FOLDER:
        # A network that was converted knows its classes without a folder.
        if data.folder or data.classes:
            return []
        return [f'config.data.folder must name a folder if data.name is "{FOLDER}".']
    try:
        class_table(data)
    except (OSError, ValueError) as error:
        return [str(error)]
    return []


def own_prepared_dir(name: str, data_dir: str) -> Path:
    """Return the folder of a user's own prepared set, whether or not it is there."""
    version = DatasetSpec.version
    return resolve_data_dir(data_dir) / name / version


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, [*SPECS, FOLDER], n=1)
    return f" Did you mean {close[0]}?" if close else ""
