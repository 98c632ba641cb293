"""Prepare your own images: `python data/folder/prepare.py --raw_dir=FOLDER --name=SET`.

Without preparation, training reads the folder itself (config.data.name="folder"); what
is read is the same.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets import SPECS
from segnext_jax.datasets.class_table import CLASSES_FILE, ClassTable, read_class_table
from segnext_jax.datasets.folder import find_splits
from segnext_jax.datasets.pairs import RawExample, read_file
from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.images.masks import MASK_VALUES, MaskReader, check_names
from segnext_jax.preparation.command import main as run
from segnext_jax.preparation.segmentation import SegmentationBuilder


def folder_builder(
    name: str, table: ClassTable, masks: MaskReader
) -> type[SegmentationBuilder]:
    """Return the builder of a user's own set.

    Args:
      name: Name of the set.
      table: Its classes.
      masks: How its masks are read.
    """

    class Folder(SegmentationBuilder):
        """Photographs and masks of a folder."""

        spec = table.spec(name)
        expected_tree = "images/{train,val}/*, masks/{train,val}/* and classes.txt"

        def find_examples(self, root: Any) -> dict[str, Sequence[RawExample]]:
            """List the pairs of each split, as the direct source does."""
            return dict(find_splits(self.raw_dir or root))

        def load(
            self, example: RawExample
        ) -> tuple[str, bytes, UInt8[np.ndarray, "h w"]]:
            """Read one pair as the direct source does."""
            labels = masks.read(read_file(example.label), str(example.label))
            return example.image_id, read_file(example.image), labels

    return Folder


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="segnext-jax prepare folder",
        description="Prepare your own images and masks as ArrayRecord.",
        epilog="Further options are those of every prepare.py: --data_dir, ...",
        allow_abbrev=False,
    )
    parser.add_argument("--raw_dir", required=True, help="folder with images/, masks/")
    parser.add_argument(
        "--name", required=True, help="what config.data.name will call it"
    )
    parser.add_argument(
        "--classes", type=Path, help=f"file of classes (default: its {CLASSES_FILE})"
    )
    parser.add_argument("--mask_values", choices=MASK_VALUES, default="ids")
    parser.add_argument(
        "--zero_is_ignore", action="store_true", help="masks: 0 ignored, classes 1.."
    )
    parser.add_argument(
        "--id_map", default="", help='ids of the masks to train ids: "7:0,8:1,0:255"'
    )
    options, rest = parser.parse_known_args(arguments)
    try:
        builder = _builder(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return run(builder, [f"--raw_dir={options.raw_dir}", *rest])


def _builder(options: argparse.Namespace) -> type[SegmentationBuilder]:
    if options.name in (*SPECS, FOLDER):
        raise ValueError(
            f"--name must be new: {options.name!r} is a name of segnext_jax. Choose "
            "another."
        )
    path = options.classes or Path(options.raw_dir).expanduser() / CLASSES_FILE
    table = read_class_table(path)
    check_names(table.classes, options.zero_is_ignore)
    masks = MaskReader(
        num_classes=len(table.classes),
        mask_values=options.mask_values,
        colours=table.colours,
        ignore_colours=table.ignore_colours,
        zero_is_ignore=options.zero_is_ignore,
        id_map=_parse_id_map(options.id_map),
    )
    return folder_builder(options.name, table, masks)


def _parse_id_map(text: str) -> tuple[tuple[int, int], ...]:
    if text and not re.fullmatch(r"\d+:\d+(,\d+:\d+)*", text):
        raise ValueError(
            f'--id_map must be pairs of numbers, as "7:0,8:1,0:255": got {text!r}.'
        )
    pairs = (pair.split(":") for pair in text.split(",") if pair)
    return tuple((int(source), int(target)) for source, target in pairs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
