"""Prepare ADE20K, 150 classes: `python data/ade20k/prepare.py`."""

import sys
from collections.abc import Mapping, Sequence

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import RawExample, match_pairs
from segnext_jax.preparation.command import main
from segnext_jax.preparation.downloads import Download
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_FOLDER = "ADEChallengeData2016"
_SPLITS = {"train": "training", "val": "validation"}


class Ade20k(SegmentationBuilder):
    """Scenes of the MIT scene parsing challenge 2016."""

    spec = get_spec("ade20k")
    downloads = (
        Download(
            f"http://data.csail.mit.edu/places/ADEchallenge/{_FOLDER}.zip",
            967_000_000,
            # Source: gluon-cv scripts/datasets/ade20k.py.
            "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
        ),
    )
    archive_names = (f"{_FOLDER}*",)
    expected_tree = f"{_FOLDER}/{{images,annotations}}/{{training,validation}}/*"

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List the pairs of the two labelled splits."""
        kinds = ("images", "annotations")
        needed = [f"{kind}/{name}" for kind in kinds for name in _SPLITS.values()]
        for base in root.find(*needed):
            return {
                split: match_pairs(*(base / f"{kind}/{name}" for kind in kinds))
                for split, name in _SPLITS.items()
            }
        raise self.not_the_tree(root)


if __name__ == "__main__":
    sys.exit(main(Ade20k))
