"""Random access to examples: prepared data sets, and plain folders of files.

A source has `len()`, and `source[i]` is a dict of the encoded photograph (`image`,
bytes), its label map (`label`, bytes of a file or an array of train ids) and its name
(`image_id`). Sources are picklable, so that worker processes can open the same files.
"""

import os
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np

from segnext_jax.datasets import DatasetSpec, prepared_dir
from segnext_jax.datasets.class_table import CLASSES_FILE, read_class_table
from segnext_jax.datasets.folder import find_splits
from segnext_jax.datasets.pairs import read_file
from segnext_jax.datasets.prepared import is_prepared, prepare_command
from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.images.decode import decode_label
from segnext_jax.images.masks import MaskReader, mask_reader
from segnext_jax.pipeline.prepared_source import PreparedSource, prepared_info

_NUM_LOOKED_AT = 32


class Example(TypedDict):
    """One photograph, still encoded, and its label map, encoded or decoded."""

    image: bytes
    label: bytes | np.ndarray
    image_id: str


@runtime_checkable
class Source(Protocol):
    """What the loaders need of a source."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Return one example."""
        ...


def open_source(
    spec: DatasetSpec,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
) -> PreparedSource:
    """Open one split of a prepared data set.

    Args:
      spec: The data set.
      split: Name of the split, `spec.train_split` for instance.
      data_dir: Folder of all prepared data sets; None for `default_data_dir()`.

    Returns:
      The examples in their natural order.

    Raises:
      FileNotFoundError: If the data set has not been prepared there.
      ValueError: If there is no such split, the folder is damaged, or the folder was
        prepared with other classes than `spec` names.
    """
    folder = prepared_dir(spec, data_dir)
    command = prepare_command(spec, data_dir)
    if not is_prepared(folder):
        raise FileNotFoundError(
            f"data set {spec.name!r} is not prepared in {folder}. Prepare it: {command}"
        )
    info = prepared_info(folder)
    if split not in info.splits:
        raise ValueError(
            f"data set {spec.name!r} has no split {split!r}: {folder} holds "
            f"{', '.join(sorted(info.splits))}. Name one of them."
        )
    metadata = info.metadata or {}
    classes = tuple(metadata.get("classes", ()))
    ignore_label = metadata.get("ignore_label")
    again = f"Delete {folder} and prepare it again: {command}"
    if classes != spec.classes:
        raise ValueError(
            f"{folder} was prepared with other classes than {spec.name!r} has: "
            f"{_first_difference(classes, spec.classes)}. {again}"
        )
    if ignore_label != spec.ignore_label:
        raise ValueError(
            f"{folder} was prepared with ignore label {ignore_label}, and "
            f"{spec.name!r} has {spec.ignore_label}. {again}"
        )
    return PreparedSource(folder, split)


class FolderSource:
    """Read one split of a user's folder as it is; `segnext_jax.datasets.folder`."""

    def __init__(
        self, folder: str | os.PathLike[str], split: str, masks: MaskReader
    ) -> None:
        """List and match the files.

        Args:
          folder: The folder that holds images/ and masks/.
          split: Name of the split.
          masks: How masks are read.

        Raises:
          FileNotFoundError: If the folder, or a folder that it must contain, is
            missing.
          ValueError: If files do not match, or there is no such split.
        """
        self.folder, self.split, self.masks = Path(folder).expanduser(), split, masks
        splits = find_splits(self.folder)
        if split not in splits:
            raise ValueError(
                f"{self.folder} has no split {split!r}: it has {', '.join(splits)}. "
                f"Make images/{split} and masks/{split}, or list its photographs in "
                f"{split}.txt."
            )
        self._pairs = splits[split]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        """Return pair `index`, in the order of the names."""
        pair = self._pairs[index]
        return {
            "image": read_file(pair.image),
            "label": self.masks.read(read_file(pair.label), str(pair.label)),
            "image_id": pair.image_id,
        }

    def __repr__(self) -> str:
        """Name the folder and the split."""
        return f"FolderSource({str(self.folder)!r}, {self.split!r})"


def open_split(data: Any, spec: DatasetSpec, split: str) -> Source:
    """Open one split of the data set that a configuration means.

    Args:
      data: The section `data` of a configuration (segnext_jax/config/fields.py).
      spec: The data set; see `segnext_jax.datasets.resolve`.
      split: Name of the split, `spec.train_split` for instance.

    Returns:
      The examples in their natural order.

    Raises:
      FileNotFoundError: If the data set has not been prepared, or its folder is
        missing.
      ValueError: If there is no such split, the data have other classes than `spec`
        names, or photographs and masks do not match.
    """
    if data.name != FOLDER:
        return open_source(spec, split, data.data_dir or None)
    if not data.folder:
        raise ValueError(
            "config.data.folder must name the folder of images and masks: it is empty."
        )
    path = Path(data.folder).expanduser() / CLASSES_FILE
    if path.is_file():
        classes = read_class_table(path).classes
        if classes != spec.classes:
            raise ValueError(
                f"{path} must name the classes of the network and its configuration: "
                f"{_first_difference(classes, spec.classes)}. Correct the file or "
                "config.data.classes, or begin a new run."
            )
    return FolderSource(data.folder, split, mask_reader(data))


def check_labelled(source: Source, spec: DatasetSpec, split: str) -> None:
    """Refuse masks in which every pixel is ignored: nothing would be learnt from them.

    The function reads masks until one has a labelled pixel, which usually is the first.
    It reads at most 32 masks, evenly taken.

    Args:
      source: The examples.
      spec: The data set.
      split: Name of the split, for the error message.

    Raises:
      ValueError: If none of these masks has a labelled pixel.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, _NUM_LOOKED_AT).astype(int))
    for index in indices.tolist():
        label = source[index]["label"]
        if isinstance(label, bytes):
            label = decode_label(label, source[index]["image_id"])
        if (label != spec.ignore_label).any():
            return
    raise ValueError(
        f"masks must have labelled pixels: in {len(indices)} masks of split "
        f"{split!r}, evenly taken, every pixel is {spec.ignore_label} (ignored). Look "
        "at them with segnext-jax check (are config.data.zero_is_ignore and "
        "config.data.id_map right?)."
    )


def _first_difference(prepared: tuple[str, ...], expected: tuple[str, ...]) -> str:
    if len(prepared) != len(expected):
        return f"{len(prepared)} classes against {len(expected)}"
    index = next(i for i, p in enumerate(prepared) if p != expected[i])
    return f"class {index} is {prepared[index]!r} there and {expected[index]!r} here"
