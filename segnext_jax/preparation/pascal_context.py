"""What the preparations of Pascal Context with 59 and 60 classes share.

Masks are the release's 459-class `.mat` files or PNGs of the 60 merged classes in
mmsegmentation's order. Pixels of the 400 classes that are not evaluated are background.

Source: tools/convert_datasets/pascal_context.py in SegNeXt@c87bcae for the ids;
shelhamer/fcn.berkeleyvision.org data/pascal-context/classes-400.txt for their names.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.pairs import (
    PreparationError,
    RawExample,
    files_by_name,
    read_file,
)
from segnext_jax.datasets.text_files import decode_text
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.matlab_files import read_label_map
from segnext_jax.preparation.segmentation import SegmentationBuilder

# The id among the 459 of each of the 60 classes; position is the merged id.
IDS_OF_459 = (
    *(0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85),
    *(98, 104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259),
    *(260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415),
    *(416, 420, 424, 427, 440, 445, 454, 458),
)
_NUM_RAW = 459
_MERGED = "SegmentationClassContext"
# The lists of the 60-class release, or those of VOC 2010's photographs.
_LISTS = ("ImageSets/SegmentationContext", "ImageSets/Main")


class PascalContextBuilder(SegmentationBuilder, skip_registration=True):
    """Photographs of VOC 2010, every pixel annotated."""

    source = (
        "VOCtrainval_03-May-2010.tar from "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2010 and trainval.tar.gz from "
        "https://cs.stanford.edu/~roozbeh/pascal-context"
    )
    archive_names = ("VOCtrainval*2010*.tar*", "trainval.tar*", "trainval.tgz")
    expected_tree = (
        "VOC2010/{JPEGImages,ImageSets/{SegmentationContext,Main}/{train,val}.txt} "
        f"and trainval/*.mat or VOC2010/{_MERGED}/*.png"
    )

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[RawExample]]:
        """List the photographs of the lists with either kind of mask."""
        for lists in _LISTS:
            needed = [f"{lists}/{split}.txt" for split in ("train", "val")]
            voc = next(root.find("JPEGImages", *needed), None)
            if voc is not None:
                break
        else:
            raise self.not_the_tree(root)
        images = files_by_name(voc / "JPEGImages", ".jpg")
        masks = files_by_name(voc / _MERGED, ".png")
        if not masks:
            for base in root.find("trainval"):
                if masks := files_by_name(base / "trainval", ".mat"):
                    break
        examples = {}
        for split in ("train", "val"):
            file = voc.file(f"{lists}/{split}.txt")
            assert file is not None
            names = decode_text(read_file(file), str(file)).split()
            for files, kind in ((images, "photograph"), (masks, "mask")):
                if missing := [name for name in names if name not in files]:
                    raise PreparationError(
                        f"{voc}/{lists}/{split}.txt lists {missing[0]}, which has no "
                        f"{kind} ({len(missing)} such names). The folder should hold "
                        f"{self.expected_tree}."
                    )
            examples[split] = [RawExample(x, images[x], masks[x]) for x in names]
        return examples

    def load(
        self, example: RawExample
    ) -> tuple[str, bytes, UInt8[np.ndarray, "height width"]]:
        """Read a pair; the release's masks are MATLAB files."""
        if not example.label.name.endswith(".mat"):
            return super().load(example)
        name = str(example.label)
        raw = read_label_map(read_file(example.label), ("LabelMap",), name)
        labels = self.to_train_ids(merge_459(raw, name), name)
        return example.image_id, read_file(example.image), labels


def merge_459(raw: np.ndarray, name: str) -> UInt8[np.ndarray, "h w"]:
    """Merge the 459 classes of the release into 60.

    Args:
      raw: Ids 1..459; 0 where nothing is annotated.
      name: The mask's file, for the error message.

    Returns:
      0 for background and every class that is not evaluated, else 1..59.

    Raises:
      ValueError: If an id is larger than 459.
    """
    if raw.max(initial=0) > _NUM_RAW:
        raise ValueError(
            f"{name}: ids of the Pascal Context release lie in [0, {_NUM_RAW}]: found "
            f"{raw.max()}. Replace the file."
        )
    table = np.zeros(_NUM_RAW + 1, np.uint8)
    table[list(IDS_OF_459)] = np.arange(len(IDS_OF_459), dtype=np.uint8)
    return table[raw]
