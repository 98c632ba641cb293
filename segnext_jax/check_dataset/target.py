"""What is checked: the pairs of a folder or of a prepared set, and their classes."""

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from segnext_jax.datasets import SPECS, DatasetSpec, prepared_dir
from segnext_jax.datasets.class_table import ClassTable
from segnext_jax.datasets.folder import SPLITS, scan_folder
from segnext_jax.datasets.pairs import RawExample, read_file
from segnext_jax.datasets.prepared import is_prepared, prepare_command
from segnext_jax.datasets.resolve import (
    FOLDER,
    class_table,
    prepared_table,
    resolve_spec,
)
from segnext_jax.images.masks import MaskReader, check_names, mask_reader
from segnext_jax.pipeline import PreparedSource
from segnext_jax.pipeline.prepared_source import prepared_info


@dataclasses.dataclass(frozen=True)
class Pair:
    """One photograph and its mask, not yet read.

    Attributes:
      split: Name of the split.
      files: Names of the two files; empty in a prepared set.
      read: Returns name, encoded photograph and encoded mask.
    """

    split: str
    files: tuple[str, ...]
    read: Callable[[], tuple[str, bytes, bytes]]


@dataclasses.dataclass(frozen=True)
class Target:
    """A data set to check.

    Attributes:
      name: What the report calls it.
      spec: Its classes; None where nothing names them.
      masks: How its masks are read.
      pairs: Its pairs, split by split.
      faults: What is known to be wrong before any pair is read.
      is_folder: Whether it is a folder, and its masks' conventions can be changed.
      planned_splits: The splits that it is meant to have; of one without a pair, the
        faults tell why.
      settings: Fields of `config.data` that name it and say how masks are read.
      remarks: What the masks said of themselves; a training finds it out alike.
      is_divided: Whether val is a part of what is there, for want of one.
    """

    name: str
    spec: DatasetSpec | None
    masks: MaskReader
    pairs: list[Pair]
    faults: list[str]
    is_folder: bool
    planned_splits: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_divided: bool = False

    @property
    def train_command(self) -> str:
        """The command that trains on it."""
        settings = () if self.remarks else self.settings
        what = self.name if self.is_folder else "--config=folder_tiny"
        options = [what, *(f"--config.data.{text}" for text in settings)]
        return shlex.join(["segnext-jax", "train", *options])

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in their order."""
        return list(dict.fromkeys(pair.split for pair in self.pairs))


def settings_of(target: str) -> dict[str, str]:
    """Return the fields of a configuration that a name or path stands for.

    Args:
      target: Name of a prepared set, its folder (with dataset_info.json), or a folder
        of photographs and masks.

    Returns:
      Values of `data.name`, `data.folder` and `data.data_dir`, where they are set.
    """
    path = pathlib.Path(target).expanduser()
    if is_prepared(path):
        name, root = path.absolute().parent.name, path.absolute().parents[1]
        return {"data.name": name, "data.data_dir": str(root)}
    if path.is_dir() or len(path.parts) != 1:
        return {"data.name": FOLDER, "data.folder": str(path)}
    return {"data.name": target}


def open_target(
    data: Any, split: str | None = None, remarks: Sequence[str] = ()
) -> Target:
    """Find the pairs of the data set that a configuration means.

    Args:
      data: The section `data` of a configuration.
      split: Name of the only split to check; None for all.
      remarks: See `conventions.adopt`.

    Raises:
      FileNotFoundError: If the data set is missing.
      ValueError: If there is no such split, or the configuration contradicts itself.
    """
    target = _open_folder(data) if data.name == FOLDER else _open_prepared(data)
    target = dataclasses.replace(target, remarks=tuple(remarks))
    if split is None:
        return dataclasses.replace(target, faults=target.faults + _missing(target))
    if split not in target.splits:
        names = ", ".join(target.splits) or "no pair at all"
        because = f" ({'; '.join(target.faults)})" if target.faults else ""
        raise ValueError(
            f"{target.name} has no split {split!r}: it has {names}{because}. Name one "
            "of its splits with --split."
        )
    pairs = [pair for pair in target.pairs if pair.split == split]
    return dataclasses.replace(target, pairs=pairs)


def _missing(target: Target) -> list[str]:
    return [
        f"there is no split {split!r}, which a training needs: make images/{split} and "
        f"masks/{split}, or list photographs in {split}.txt"
        for split in SPLITS[:2]
        if target.is_folder and split not in target.planned_splits
    ]


def _open_folder(data: Any) -> Target:
    scan = scan_folder(data.folder)
    faults = list(scan.faults)
    spec = None
    try:
        table = class_table(data)
        check_names(table.classes, data.zero_is_ignore)
        spec, masks = table.spec(FOLDER), mask_reader(data)
    except (OSError, ValueError) as error:
        # Without classes the ids can still be counted.
        faults.append(str(error))
        masks = MaskReader(256)
    pairs = [
        Pair(
            split,
            (str(example.image), str(example.label)),
            functools.partial(_read_files, example),
        )
        for split, examples in scan.splits.items()
        for example in examples
    ]
    # The whole path, because the title "." would say nothing.
    name = str(pathlib.Path(data.folder).expanduser().absolute())
    planned = tuple(scan.splits)
    settings = []
    if data.mask_values != "ids":
        settings.append(f"mask_values={data.mask_values}")
    if data.zero_is_ignore:
        settings.append("zero_is_ignore=true")
    if data.id_map:
        settings.append(f"id_map={','.join(f'({a},{b})' for a, b in data.id_map)}")
    return Target(
        *(name, spec, masks, pairs, faults, True, planned, tuple(settings)),
        is_divided=scan.is_divided,
    )


def _open_prepared(data: Any) -> Target:
    spec = resolve_spec(data)
    folder = prepared_dir(spec, data.data_dir or None)
    if not is_prepared(folder):
        command = prepare_command(spec, data.data_dir or None)
        raise FileNotFoundError(
            f"data set {spec.name!r} is not prepared in {folder}. Prepare it: {command}"
        )
    table = prepared_table(folder)
    faults = []
    if table.classes != spec.classes:
        # What the numbers in it mean, its own table says.
        faults.append(
            f"it was prepared with other classes than {spec.name!r} has now: delete "
            f"{folder} and prepare it again"
        )
        spec = ClassTable(table.classes, table.colours).spec(spec.name)
    pairs = []
    for split in prepared_info(folder).splits:
        source = PreparedSource(folder, split)
        for index in range(len(source)):
            read = functools.partial(_read_record, source, index)
            pairs.append(Pair(split, (), read))
    masks = MaskReader(spec.num_classes, ignore_label=spec.ignore_label)
    settings = [f"name={spec.name}"]
    settings += [f"data_dir={data.data_dir}"] * bool(data.data_dir)
    settings += ["folder="] * (spec.name in SPECS)  # The config names one.
    return Target(
        f"{spec.name} ({folder})",
        spec,
        masks,
        pairs,
        faults,
        is_folder=False,
        settings=tuple(settings),
    )


def _read_files(example: RawExample) -> tuple[str, bytes, bytes]:
    return example.image_id, read_file(example.image), read_file(example.label)


def _read_record(source: PreparedSource, index: int) -> tuple[str, bytes, bytes]:
    record = source[index]
    label = record["label"]
    assert isinstance(label, bytes)
    return record["image_id"], record["image"], label
