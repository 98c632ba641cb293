"""Random access to photographs with one class each: prepared sets and plain folders.

A source has `len()`, and `source[i]` is a dict of the encoded photograph (`image`), the
position of its class in the sorted names of the class folders (`label`) and its name
(`image_id`). Sources are picklable.
"""

from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from segnext_jax.datasets.pairs import read_file
from segnext_jax.datasets.photographs import (
    find_photographs,
    photograph_classes,
    prepared_photographs_dir,
)
from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.pipeline.sources import PreparedSource


class Photograph(TypedDict):
    """One encoded photograph and the number of its class."""

    image: bytes
    label: int
    image_id: str


@runtime_checkable
class Photographs(Protocol):
    """What the loaders need of a source."""

    def __len__(self) -> int:
        """Return the number of photographs."""
        ...

    def __getitem__(self, index: int) -> Photograph:
        """Return one photograph."""
        ...


class FolderPhotographs:
    """Read one split of a folder ``train/CLASS/*.jpg`` as it is."""

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        """List the files.

        Args:
          folder: The split's folder.
          classes: Names of the class folders.

        Raises:
          FileNotFoundError: If the folder is missing.
          ValueError: If the folder holds no photograph, or has a class that is not in
            ``classes``.
        """
        self.folder = folder
        # Names, not paths: a list of a million paths is slow to send to a worker.
        self._names = find_photographs(folder, classes)
        self._labels = {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self._names)

    def __getitem__(self, index: int) -> Photograph:
        """Return photograph `index`, in the order of classes and names."""
        name = self._names[index]
        return {
            "image": read_file(self.folder / name),
            "label": self._labels[name.partition("/")[0]],
            "image_id": name,
        }

    def __repr__(self) -> str:
        """Name the folder."""
        return f"FolderPhotographs({str(self.folder)!r})"


def open_photographs(data: Any, classes: tuple[str, ...], split: str) -> Photographs:
    """Open one split of the photographs that a configuration means.

    Args:
      data: The section `data` of a configuration (segnext_jax/config/fields.py).
      classes: Names of the class folders that the network knows.
      split: "train" or "val".

    Returns:
      The photographs in the order of their classes.

    Raises:
      FileNotFoundError: If the set is not prepared, or its folder is missing.
      ValueError: If the data have other classes, or there is no such split.
    """
    if data.name == FOLDER:
        return FolderPhotographs(Path(data.folder).expanduser() / split, classes)
    folder = prepared_photographs_dir(data)
    if photograph_classes(data) != classes:
        raise ValueError(
            f"{folder} must hold the {len(classes)} classes of the network: it was "
            "prepared with others. Name another set, or begin a new run."
        )
    return PreparedSource(folder, split)
