"""Prepare Pascal VOC 2012 with SBD, 21 classes: `python data/voc2012/prepare.py`.

Photographs of VOC's own train split keep VOC's mask in `trainaug` (with its ignored
border), as in mmsegmentation; the others have SBD's.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import (
    PreparationError,
    RawExample,
    RawFile,
    files_by_name,
    read_file,
)
from segnext_jax.datasets.text_files import decode_text
from segnext_jax.preparation.command import main
from segnext_jax.preparation.downloads import Download
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.matlab_files import read_label_map
from segnext_jax.preparation.segmentation import SegmentationBuilder

_LISTS = "ImageSets/Segmentation"
_SPLITS = ("train", "val", "trainval")
_SBD = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping"


def trainaug_ids(
    train: Iterable[str], val: Iterable[str], sbd: Iterable[str]
) -> list[str]:
    """Return VOC's train photographs and SBD's, without those of VOC's val.

    Args:
      train: Photographs of VOC's train split.
      val: Photographs of VOC's val split.
      sbd: Photographs of both splits of SBD.

    Returns:
      10,582 sorted names for the published lists.
    """
    return sorted((set(train) | set(sbd)) - set(val))


class Voc2012(SegmentationBuilder):
    """Photographs with objects of 20 classes."""

    spec = get_spec("voc2012")
    # Checksums: torchvision/datasets/{voc,sbd}.py.
    downloads = (
        Download(
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
        ),
        Download(
            f"{_SBD}/semantic_contours/benchmark.tgz",
            1_419_539_633,
            "md5:82b4d87ceb2ed10f6038a1cba92111cb",
        ),
    )
    archive_names = ("VOCtrainval*2012*.tar*", "benchmark*", "SegmentationClassAug*")
    expected_tree = (
        "VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation} and, for "
        "trainaug, benchmark_RELEASE/dataset/{cls,train.txt,val.txt} or "
        "SegmentationClassAug/*.png"
    )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List VOC's splits and, where SBD is there, trainaug."""
        lists = [f"{_LISTS}/{split}.txt" for split in _SPLITS]
        voc = next(root.find("JPEGImages", "SegmentationClass", *lists), None)
        if voc is None:
            raise self.not_the_tree(root)
        images = files_by_name(voc / "JPEGImages", ".jpg")
        masks = files_by_name(voc / "SegmentationClass", ".png")
        ids = {split: _read_list(voc, f"{_LISTS}/{split}.txt") for split in _SPLITS}
        examples = {
            split: [_pair(name, images, masks, voc) for name in names]
            for split, names in ids.items()
        }
        more = self._more_masks(root)
        if more is None:
            self.notes.append(
                "the split trainaug is left out, as neither SBD nor "
                "SegmentationClassAug was found. Put benchmark.tgz beside the other "
                "files, delete the prepared folder, and prepare again to have it."
            )
            return examples
        own = {name: masks[name] for name in ids["train"]}
        examples["trainaug"] = [
            _pair(name, images, more | own, voc)
            for name in trainaug_ids(ids["train"], ids["val"], more)
        ]
        return examples

    def load(
        self, example: RawExample
    ) -> tuple[str, bytes, UInt8[np.ndarray, "height width"]]:
        """Read a pair; SBD's masks are MATLAB files."""
        if not example.label.name.endswith(".mat"):
            return super().load(example)
        name = str(example.label)
        raw = read_label_map(read_file(example.label), ("GTcls", "Segmentation"), name)
        labels = self.to_train_ids(raw.astype(np.uint8), name)
        return example.image_id, read_file(example.image), labels

    def _more_masks(self, root: RawFolder) -> dict[str, RawFile] | None:
        """Return the masks beyond VOC's own by photograph, None if there are none."""
        needed = ("cls", "train.txt", "val.txt")
        for sbd in root.find(*needed):
            masks = files_by_name(sbd / "cls", ".mat")
            names = _read_list(sbd, "train.txt") + _read_list(sbd, "val.txt")
            if missing := [name for name in names if name not in masks]:
                raise PreparationError(
                    f"{sbd} lists {missing[0]} but has no cls/{missing[0]}.mat "
                    f"({len(missing)} such names). Complete the folder."
                )
            return {name: masks[name] for name in names}
        for base in root.find("SegmentationClassAug"):
            return files_by_name(base / "SegmentationClassAug", ".png")
        return None


def _read_list(folder: RawFolder, path: str) -> list[str]:
    file = folder.file(path)
    assert file is not None, "the folder was searched for by this file"
    return decode_text(read_file(file), str(file)).split()


def _pair(
    name: str, images: dict[str, RawFile], masks: dict[str, RawFile], root: RawFolder
) -> RawExample:
    for files, kind in ((images, "photograph"), (masks, "mask")):
        if name not in files:
            raise PreparationError(
                f"{root} lists {name} but has no {kind} of that name. Complete the "
                "folder (is the archive unpacked whole?)."
            )
    return RawExample(name, images[name], masks[name])


if __name__ == "__main__":
    sys.exit(main(Voc2012))
