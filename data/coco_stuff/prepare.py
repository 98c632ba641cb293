"""Prepare COCO-Stuff 164k, 171 classes: `python data/coco_stuff/prepare.py`."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import RawExample, files_by_name, match_pairs, read_file
from segnext_jax.images.decode import decode_label
from segnext_jax.preparation.command import main
from segnext_jax.preparation.downloads import Download
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_TRAIN_IDS = "_labelTrainIds.png"


class CocoStuff(SegmentationBuilder):
    """Photographs of COCO 2017 with things and stuff."""

    spec = get_spec("coco_stuff")
    downloads = (
        # Source: TFDS's own list.
        Download(
            "http://images.cocodataset.org/zips/train2017.zip",
            19_336_861_798,
            "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
        Download(
            "http://images.cocodataset.org/zips/val2017.zip",
            815_585_330,
            "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        ),
        # No published checksum was found; each member's CRC-32 is checked.
        Download(
            "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
            "stuffthingmaps_trainval2017.zip",
            690_000_000,
        ),
    )
    archive_names = ("train2017*.zip", "val2017*.zip", "stuffthingmaps*.zip")
    expected_tree = (
        "[images/]{train,val}2017/*.jpg and "
        "{annotations,stuffthingmaps}/{train,val}2017/*.png"
    )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """Match photographs and masks: folders of one name, told by their files."""
        examples = {}
        for split in ("train", "val"):
            name = f"{split}2017"
            folders = [base / name for base in root.find(name)]
            images = next((f for f in folders if files_by_name(f, ".jpg")), None)
            labels = next((f for f in folders if files_by_name(f, ".png")), None)
            if images is None or labels is None:
                raise self.not_the_tree(root)
            # mmsegmentation's converter writes train ids beside the official masks.
            is_official = bool(files_by_name(labels, ".png", _TRAIN_IDS))
            examples[split] = match_pairs(
                images,
                labels,
                image_ending=".jpg",
                label_ending=".png" if is_official else _TRAIN_IDS,
                other_ending=_TRAIN_IDS if is_official else "",
            )
        return examples

    def load(
        self, example: RawExample
    ) -> tuple[str, bytes, UInt8[np.ndarray, "height width"]]:
        """Read a pair; converted masks hold train ids already."""
        if not example.label.name.endswith(_TRAIN_IDS):
            return super().load(example)
        labels = decode_label(read_file(example.label), str(example.label))
        return example.image_id, read_file(example.image), labels


if __name__ == "__main__":
    sys.exit(main(CocoStuff))
