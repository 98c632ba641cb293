"""Prepare ADE20K, 150 classes: `python data/ade20k/prepare.py`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.builder import SegmentationBuilder
from segnext_jax.datasets.preparation import main
from segnext_jax.datasets.raw_files import PreparationError, RawExample, match_pairs

_FOLDER = "ADEChallengeData2016"
_SPLITS = {"train": "training", "val": "validation"}


class Ade20k(SegmentationBuilder):
    """Scenes of the MIT scene parsing challenge 2016."""

    spec = get_spec("ade20k")
    download_url = f"http://data.csail.mit.edu/places/ADEchallenge/{_FOLDER}.zip"
    expected_tree = f"{_FOLDER}/{{images,annotations}}/{{training,validation}}/*"
    # 0 is "other": neither loss nor metric counts it.
    train_id_of = {0: 255} | {raw: raw - 1 for raw in range(1, 151)}

    def find_examples(self, root: Path) -> dict[str, Sequence[RawExample]]:
        """List the pairs of the two labelled splits."""
        for base in (root, root / _FOLDER):
            folders = {
                split: (base / "images" / name, base / "annotations" / name)
                for split, name in _SPLITS.items()
            }
            if all(path.is_dir() for pair in folders.values() for path in pair):
                return {split: match_pairs(*pair) for split, pair in folders.items()}
        raise PreparationError(
            f"{root} does not look like ADE20K: it should hold {self.expected_tree}. "
            "Name another folder with --raw_dir."
        )


if __name__ == "__main__":
    sys.exit(main(Ade20k))
