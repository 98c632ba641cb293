"""Label maps as the servers of the benchmarks want them."""

import dataclasses
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import whole_file
from segnext_jax.datasets import SPECS, DatasetSpec

_CITYSCAPES_ENDING = "_leftImg8bit"
_CITYSCAPES_NAME = re.compile(r"[^_]+_\d+_\d+")


@dataclasses.dataclass(frozen=True)
class BenchmarkFormat:
    """How one benchmark wants its files.

    Attributes:
      dataset: Whose classes the network must have.
      ids: What is written for each train id.
      folder: Where the files lie within the archive.
      has_palette: Whether files show the colours of the classes.
      ending: What follows an image's name, before the suffix.
      archive: Suffix of the archive that is made of all files; None: none.
    """

    dataset: str
    ids: tuple[int, ...]
    folder: str = ""
    has_palette: bool = False
    ending: str = ""
    archive: str | None = ".zip"

    @property
    def id_of(self) -> UInt8[np.ndarray, "256"]:
        """What is written for each train id, as a table."""
        table = np.zeros(256, np.uint8)
        table[: len(self.ids)] = self.ids
        return table

    @property
    def spec(self) -> DatasetSpec:
        """The classes that the network must have."""
        return SPECS[self.dataset]

    def relative_path(self, name: pathlib.PurePath) -> pathlib.PurePath:
        """Return where the file of an image goes, below the format's folder.

        Folders of the inputs are left out: names of a benchmark's images are unique.
        """
        stem = name.name.removesuffix(_CITYSCAPES_ENDING) if self.ending else name.name
        return pathlib.PurePath(self.folder, f"{stem}{self.ending}.png")


def _official(dataset: str) -> tuple[int, ...]:
    return SPECS[dataset].official_ids


FORMATS = {
    # The server wants ids 1 to 150; 0 are the pixels that are not annotated.
    "ade20k": BenchmarkFormat("ade20k", _official("ade20k")),
    # evalPixelLevelSemanticLabeling.py looks for <city>_<number>_<number>*.png.
    "cityscapes": BenchmarkFormat(
        "cityscapes", _official("cityscapes"), ending="_pred_labelIds"
    ),
    # Source: the development kit of 2012, "Submission of results".
    "voc": BenchmarkFormat(
        "voc2012",
        _official("voc2012"),
        folder="results/VOC2012/Segmentation/comp6_test_cls",
        has_palette=True,
        archive=".tar",
    ),
    "coco_stuff": BenchmarkFormat(
        "coco_stuff",
        _official("coco_stuff"),
        archive=None,
    ),
    # The server wants ids 0 to 6, and the masks hold 1 to 7.
    "loveda": BenchmarkFormat("loveda", tuple(range(SPECS["loveda"].num_classes))),
}


def check(name: str, spec: DatasetSpec, names: Sequence[pathlib.PurePath]) -> None:
    """Refuse a format that does not fit the network or the inputs.

    Args:
      name: Key of `FORMATS`.
      spec: Classes of the network.
      names: Names of the inputs.

    Raises:
      ValueError: If the network has other classes, or a name does not say which image
        of Cityscapes it names.
    """
    wanted = FORMATS[name].spec
    if spec.classes != wanted.classes:
        raise ValueError(
            f"--format={name} is for networks with the {wanted.num_classes} classes of "
            f"{wanted.name} ({', '.join(wanted.classes[:3])}, ...): this one has "
            f"{spec.num_classes} ({', '.join(spec.classes[:3])}, ...). Use "
            "--format=labels."
        )
    if name == "cityscapes":
        wrong = [n for n in names if not _CITYSCAPES_NAME.match(n.name)]
        if wrong:
            raise ValueError(
                "--format=cityscapes needs the names of Cityscapes' images, "
                f"CITY_NUMBER_NUMBER_leftImg8bit.png: got {wrong[0].name}. Use "
                "--format=labels for others."
            )


def write_archive(
    archive: pathlib.Path, root: pathlib.Path, paths: Sequence[pathlib.Path]
) -> None:
    """Put files into a .tar or .zip, under their paths below a folder.

    Nothing is compressed again: PNG files are.

    Args:
      archive: The file to write, replaced if it is there.
      root: The folder.
      paths: The files.
    """
    with whole_file(archive) as partial:
        if archive.suffix == ".tar":
            with tarfile.open(partial, "w") as tar:
                for path in paths:
                    with storage.local(path) as file:
                        tar.add(file, str(path.relative_to(root)))
        else:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as zipped:
                for path in paths:
                    with storage.local(path) as file:
                        zipped.write(file, str(path.relative_to(root)))
