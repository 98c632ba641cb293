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
# Raw ids in the order of their train ids, 0 to 18.
# Source: cityscapesscripts/helpers/labels.py.
_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


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
    # Ids 0..33 that are not evaluated, and the licence plate: -1, 255 in a byte.
    train_id_of = (
        {raw: 255 for raw in (*range(34), 255)}
        | {raw: train_id for train_id, raw in enumerate(_EVALUATED)}
    )  # fmt: skip

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
