"""Photographs with one class each, in ImageNet's layout, to a prepared data set.

A prepared example holds the photograph's own file contents (`image`), the position of
its class in the sorted names of the class folders (`label`) and its name (`image_id`).
The metadata hold the folders' names (`synsets`) and what they mean (`classes`).
"""

import argparse
import dataclasses
import fnmatch
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from segnext_jax.datasets.pairs import PreparationError, RawFile, file_size, read_file
from segnext_jax.datasets.text_files import decode_text, read_lines
from segnext_jax.images.decode import decode_image
from segnext_jax.preparation.builder import RawBuilder
from segnext_jax.preparation.folders import RawFolder

_ENDINGS = (".jpg", ".jpeg", ".png")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE_NAMES = "LOC_synset_mapping.txt"
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})$")


@dataclasses.dataclass(frozen=True)
class RawPhotograph:
    """One photograph and the position of its class."""

    image_id: str
    image: RawFile
    label: int


_HOMEPAGE = "https://image-net.org"
_CITATION = (
    "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015"
)


class ImageNet(RawBuilder, skip_registration=True):
    """Photographs in a folder per class, or ImageNet's own archives."""

    name = "imagenet"
    source = (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org/download (account needed)"
    )
    archive_names = ("ILSVRC2012_*.tar", "ILSVRC2012_*.tar.gz", "n[0-9]*.tar")
    expected_tree = "{train,val}/CLASS/*.JPEG or ILSVRC2012_img_{train,val}.tar"

    def __init__(self, *, name: str = "imagenet", **kwargs: Any) -> None:
        """Choose the name of the prepared folder.

        Args:
          name: Lower-case name; one per data set of this layout.
          **kwargs: What every builder takes.

        Raises:
          PreparationError: If the name is no lower-case identifier.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise PreparationError(
                "--name must be lower-case letters, digits and underscores: got "
                f"{name!r}. Choose another."
            )
        # TFDS reads it from the instance, too.
        self.name = name  # type: ignore[misc] - declared for classes only
        super().__init__(**kwargs)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add the name of other data sets in this layout."""
        parser.add_argument(
            "--name",
            default="imagenet",
            help="folder of the prepared data set, for other sets of photographs in "
            "this layout (default: imagenet)",
        )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawPhotograph]]:
        """List the photographs of both splits by class."""
        folders = {split: _split_folder(root, split) for split in ("train", "val")}
        train, val = folders["train"], folders["val"]
        if train is None or val is None:
            raise self.not_the_tree(root)
        by_class = {"train": _class_folders(train), "val": _class_folders(val)}
        synsets = sorted(by_class["train"])
        if not synsets:
            raise self.not_the_tree(root)
        if not by_class["val"]:
            by_class["val"] = _val_by_ground_truth(root, val)
        label_of = {synset: label for label, synset in enumerate(synsets)}
        if unknown := sorted(by_class["val"].keys() - label_of.keys()):
            raise PreparationError(
                f"{val}: classes must be those of {train}: {unknown[0]!r} is not there "
                f"({len(unknown)} such classes). Complete the folder."
            )
        words = _words(root)
        assert self.info.metadata is not None
        self.info.metadata["synsets"] = synsets
        self.info.metadata["classes"] = [words.get(name, name) for name in synsets]
        return {
            split: [
                RawPhotograph(name, photographs[name], label_of[synset])
                for synset, photographs in sorted(classes.items())
                for name in sorted(photographs)
            ]
            for split, classes in by_class.items()
        }

    def encode(self, example: RawPhotograph) -> dict[str, Any]:
        """Read and check one photograph."""
        image = read_file(example.image)
        decode_image(image, str(example.image))
        return {
            "image": io.BytesIO(image),
            "label": example.label,
            "image_id": example.image_id,
        }

    def size_bytes(self, example: RawPhotograph) -> int:
        """Return the size of the photograph's file."""
        return file_size(example.image)

    def _info(self) -> tfds.core.DatasetInfo:
        is_imagenet = self.name == "imagenet"
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.name}: photographs with one class each.",
            homepage=_HOMEPAGE if is_imagenet else "none: a set of your own",
            citation=_CITATION if is_imagenet else "",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.Scalar(np.int32),
                    "image_id": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(mapping_version=str(self.VERSION)),
            disable_shuffling=True,
        )


def _split_folder(root: RawFolder, split: str) -> RawFolder | None:
    for base in root.find(split):
        return base / split
    for folder in root.find():
        if fnmatch.fnmatch(folder.name, f"ILSVRC2012_img_{split}*"):
            return folder
    return None


def _class_folders(folder: RawFolder) -> dict[str, dict[str, RawFile]]:
    """Return the photographs of each folder of a split by class and name."""
    return {
        name.removesuffix(".tar"): photographs
        for name, child in folder.children().items()
        if isinstance(child, RawFolder)
        if (photographs := _photographs(child))
    }


def _photographs(folder: RawFolder) -> dict[str, RawFile]:
    return {
        path.rpartition(".")[0]: file
        for path, file in folder.files().items()
        if path.lower().endswith(_ENDINGS)
    }


def _val_by_ground_truth(
    root: RawFolder, val: RawFolder
) -> dict[str, dict[str, RawFile]]:
    """Sort the flat validation archive by class: by the development kit, else by TFDS.

    TFDS's package holds the same list, so that the kit is not needed.
    """
    synset_of = _kit_synsets(root)
    kit = next(root.find(_TRUTH), None)
    truth_file = None if kit is None else kit.file(_TRUTH)
    if truth_file is not None and synset_of:
        numbers = decode_text(read_file(truth_file), str(truth_file)).split()
        truth = [synset_of[int(number)] for number in numbers]
    else:
        file = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
        truth = Path(file).read_text().split()
    classes: dict[str, dict[str, RawFile]] = {}
    for name, photograph in _photographs(val).items():
        number = _VAL_NAME.search(name)
        if number is None or not 1 <= int(number[1]) <= len(truth):
            raise PreparationError(
                f"{photograph}: photographs that lie in no class folder must be named "
                f"ILSVRC2012_val_00000001 to ..._{len(truth):08d}. Sort them into one "
                "folder per class."
            )
        classes.setdefault(truth[int(number[1]) - 1], {})[number[0]] = photograph
    return classes


def _kit_synsets(root: RawFolder) -> dict[int, str]:
    return {number: synset for number, synset, _ in _kit_table(root)}


def _kit_table(root: RawFolder) -> list[tuple[int, str, str]]:
    """Return number, synset and words of the kit's classes; empty without the kit."""
    for folder in root.find("meta.mat"):
        file = folder.file("meta.mat")
        assert file is not None
        table = scipy.io.loadmat(io.BytesIO(read_file(file)), squeeze_me=True)
        return [
            (int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"]))
            for row in np.atleast_1d(table["synsets"])
        ]
    return []


def _words(root: RawFolder) -> dict[str, str]:
    """Return the first word for each synset, from the kit or Kaggle's table."""
    words = {synset: text for _, synset, text in _kit_table(root)}
    for folder in root.find(_KAGGLE_NAMES):
        file = folder.file(_KAGGLE_NAMES)
        assert file is not None
        for line in read_lines(file):
            synset, _, text = line.partition(" ")
            words[synset] = text
    return {synset: text.partition(",")[0].strip() for synset, text in words.items()}
