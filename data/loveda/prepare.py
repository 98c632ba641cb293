"""Prepare LoveDA, 7 classes: `python data/loveda/prepare.py`."""

import sys
from collections.abc import Mapping, Sequence

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import RawExample, match_pairs
from segnext_jax.preparation.command import main
from segnext_jax.preparation.downloads import Download
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_SPLITS = {"train": "Train", "val": "Val"}
_SCENES = ("Urban", "Rural")
_RECORD = "https://zenodo.org/records/5706578/files"


class Loveda(SegmentationBuilder):
    """Aerial images of three Chinese cities and their surroundings, 1024x1024."""

    spec = get_spec("loveda")
    # Checksums: those of the Zenodo record, as torchgeo/datasets/loveda.py lists them.
    downloads = (
        Download(
            f"{_RECORD}/Train.zip?download=1",
            4_021_669_263,
            "md5:de2b196043ed9b4af1690b3f9a7d558f",
        ),
        Download(
            f"{_RECORD}/Val.zip?download=1",
            2_425_958_254,
            "md5:84cae2577468ff0b5386758bb386d31d",
        ),
    )
    archive_names = ("Train*.zip", "Val*.zip")
    expected_tree = "{Train,Val}/{Urban,Rural}/{images_png,masks_png}/*.png"

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List the pairs of both scenes; the masks of Test are not published."""
        examples: dict[str, list[RawExample]] = {}
        for split, name in _SPLITS.items():
            examples[split] = []
            for scene in _SCENES:
                folders = [f"{name}/{scene}/{x}" for x in ("images_png", "masks_png")]
                base = next(root.find(*folders), None)
                if base is None:
                    raise self.not_the_tree(root)
                examples[split] += match_pairs(*(base / folder for folder in folders))
            # Numbers are unique over both scenes; the order is that of the numbers.
            examples[split].sort(key=lambda x: (len(x.image_id), x.image_id))
        return examples


if __name__ == "__main__":
    sys.exit(main(Loveda))
