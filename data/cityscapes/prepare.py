"""Prepare Cityscapes, 19 classes: `python data/cityscapes/prepare.py --raw_dir=FOLDER`.

Masks are read from `*_gtFine_labelIds.png`, which every download holds, or, where a
split lacks those, from the `*_gtFine_labelTrainIds.png` that cityscapesScripts makes.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import RawExample, files_by_name, match_pairs, read_file
from segnext_jax.images.decode import decode_label
from segnext_jax.preparation.command import main
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_IMAGE_ENDING = "_leftImg8bit.png"
_RAW_IDS = "_gtFine_labelIds.png"
_TRAIN_IDS = "_gtFine_labelTrainIds.png"


class Cityscapes(SegmentationBuilder):
    """Street scenes of 50 cities, the fine annotations."""

    spec = get_spec("cityscapes")
    source = (
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
        "https://www.cityscapes-dataset.com/downloads (account needed)"
    )
    archive_names = ("leftImg8bit*.zip", "gtFine*.zip")
    expected_tree = (
        f"leftImg8bit/{{train,val}}/CITY/*{_IMAGE_ENDING} "
        f"and gtFine/{{train,val}}/CITY/*{_RAW_IDS}"
    )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List the pairs of train and val; the masks of test are dummies."""
        examples = {}
        for split in ("train", "val"):
            folders = []
            for path in (f"leftImg8bit/{split}", f"gtFine/{split}"):
                base = next(root.find(path), None)
                if base is None:
                    raise self.not_the_tree(root)
                folders.append(base / path)
            images, labels = folders
            ending = _RAW_IDS if files_by_name(labels, _RAW_IDS) else _TRAIN_IDS
            pairs = match_pairs(
                images, labels, image_ending=_IMAGE_ENDING, label_ending=ending
            )
            examples[split] = [
                # The city is the first part of the name too.
                RawExample(pair.image_id.rpartition("/")[2], pair.image, pair.label)
                for pair in pairs
            ]
        return examples

    def load(
        self, example: RawExample
    ) -> tuple[str, bytes, UInt8[np.ndarray, "height width"]]:
        """Read a pair; train ids need no table."""
        if not example.label.name.endswith(_TRAIN_IDS):
            return super().load(example)
        labels = decode_label(read_file(example.label), str(example.label))
        return example.image_id, read_file(example.image), labels


if __name__ == "__main__":
    sys.exit(main(Cityscapes))
