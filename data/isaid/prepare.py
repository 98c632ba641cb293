"""Prepare iSAID, 16 classes: `python data/isaid/prepare.py --raw_dir=FOLDER`.

Aerial photographs of up to 13,000 pixels a side are cut into overlapping patches. Their
pixels are encoded anew as PNG, without loss; memory holds one photograph at a time.

Source: tools/convert_datasets/isaid.py of mmsegmentation and of JSeg.
Differs: a photograph that is exactly as large as a patch on one side and smaller on the
other is padded too; mmsegmentation cuts it from a negative row or column.
"""

import argparse
import dataclasses
import io
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets import get_spec
from segnext_jax.datasets.pairs import (
    PreparationError,
    RawExample,
    RawFile,
    files_by_name,
    match_pairs,
    read_file,
    read_head,
)
from segnext_jax.images.decode import decode_image, encode_label, png_size
from segnext_jax.images.masks import colours_to_ids
from segnext_jax.preparation.command import main
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

_MASK_ENDING = "_instance_color_RGB.png"
_PNG_HEADER_BYTES = 32
# Name: patch side and overlap in pixels, whether a photograph that is not larger than
# a patch on both sides is kept as it is (else: padded), photographs that are left out.
_PRESETS = {
    "mmseg": (896, 384, False, ()),
    "jseg": (800, 200, True, ("P1527", "P1530")),
}
_CUT = "cut"

# Photograph and train ids.
_Opened = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Patch:
    """A window of a photograph: rows top..bottom, columns left..right, in pixels."""

    image_id: str
    image: RawFile
    label: RawFile
    top: int
    bottom: int
    left: int
    right: int


def window_starts(length: int, patch: int, stride: int) -> list[int]:
    """Return where windows begin along one side.

    Args:
      length: Pixels of the side, at least `patch`.
      patch: Pixels of a window.
      stride: Pixels from one window to the next.

    Returns:
      Multiples of the stride; windows that would reach over the end are moved inside,
      and each is named once.
    """
    return sorted({min(x, length - patch) for x in range(0, length, stride)})


class Isaid(SegmentationBuilder):
    """Aerial photographs of DOTA 1.0 with masks of iSAID, in patches."""

    spec = get_spec("isaid")
    source = (
        "the photographs of DOTA-v1.0 and the masks (Semantic_masks) from "
        "https://captain-whu.github.io/iSAID/dataset"
    )
    archive_names = ("*.zip", "*.tar", "*.tar.gz", "*.tgz")
    expected_tree = (
        f"{{train,val}}/**/P*.png and {{train,val}}/**/P*{_MASK_ENDING}, or with "
        "--preset=cut {img_dir,ann_dir}/{train,val}/*.png"
    )

    def __init__(
        self,
        *,
        preset: str = "mmseg",
        patch_size: int | None = None,
        overlap: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Choose the patches.

        Args:
          preset: Whose patches: "mmseg", "jseg", or "cut" for a folder of patches.
          patch_size: Side of a patch in pixels; None for the preset's.
          overlap: Pixels that neighbours share; None for the preset's.
          **kwargs: What every builder takes.

        Raises:
          PreparationError: If the overlap is not smaller than the patch.
        """
        self._preset = preset
        size, shared, self._keeps_small, self._left_out = _PRESETS.get(
            preset, (0, 0, False, ())
        )
        self._patch = size if patch_size is None else patch_size
        self._overlap = shared if overlap is None else overlap
        if preset == _CUT and (patch_size is not None or overlap is not None):
            raise PreparationError(
                "--preset=cut takes the patches as they are: leave out --patch_size "
                "and --overlap."
            )
        if preset != _CUT and not 0 <= self._overlap < self._patch:
            raise PreparationError(
                "the overlap must be smaller than the patch and not negative: got "
                f"--overlap={self._overlap} and --patch_size={self._patch}. Change one."
            )
        self._lock = threading.Lock()
        self._opened: tuple[RawFile, _Opened | ValueError] | None = None
        super().__init__(**kwargs)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add what decides about the patches."""
        parser.add_argument(
            "--preset",
            choices=[*_PRESETS, _CUT],
            default="mmseg",
            help="whose patches: mmseg (896 pixels, overlap 384), jseg (800, 200; the "
            "published SegNeXt results), cut (img_dir and ann_dir, cut already)",
        )
        parser.add_argument("--patch_size", type=int, help="side in pixels")
        parser.add_argument("--overlap", type=int, help="pixels that neighbours share")

    def options(self) -> dict[str, Any]:
        """Return what decides about the patches."""
        if self._preset == _CUT:
            return {"patches": _CUT}
        return {
            "patches": self._preset,
            "patch_size": self._patch,
            "overlap": self._overlap,
        }

    def find_examples(
        self, root: RawFolder
    ) -> Mapping[str, Sequence[Patch | RawExample]]:
        """List the patches of train and val; the masks of test are not published."""
        splits = ("train", "val")
        if self._preset == _CUT:
            folders = [f"{kind}/{x}" for kind in ("img_dir", "ann_dir") for x in splits]
            for base in root.find(*folders):
                return {
                    split: match_pairs(
                        base / f"img_dir/{split}",
                        base / f"ann_dir/{split}",
                        image_ending=".png",
                        label_ending=_MASK_ENDING,
                    )
                    for split in splits
                }
            raise self.not_the_tree(root)
        for base in root.find(*splits):
            found = {split: _photographs(base / split) for split in splits}
            if all(found.values()):
                return {
                    split: [
                        patch
                        for example in examples
                        if example.image_id not in self._left_out
                        for patch in self._patches(example)
                    ]
                    for split, examples in found.items()
                }
        raise self.not_the_tree(root)

    def encode(self, example: Patch | RawExample) -> dict[str, Any]:
        """Cut and encode one patch."""
        if isinstance(example, RawExample):
            return super().encode(example)
        image, labels = self._cut(example)
        is_encoded, encoded = cv2.imencode(
            ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        )
        assert is_encoded
        return {
            "image": io.BytesIO(encoded.tobytes()),
            "label": io.BytesIO(encode_label(labels)),
            "image_id": example.image_id,
            "height": labels.shape[0],
            "width": labels.shape[1],
        }

    def size_bytes(self, example: Patch | RawExample) -> int:
        """Return two bytes per pixel of a patch: about what PNG makes of three."""
        if isinstance(example, RawExample):
            return super().size_bytes(example)
        return 2 * (example.bottom - example.top) * (example.right - example.left)

    def _patches(self, example: RawExample) -> list[Patch]:
        height, width = png_size(read_head(example.image, _PNG_HEADER_BYTES)) or (0, 0)
        if self._keeps_small and min(height, width) <= self._patch:
            name, image, label = example.image_id, example.image, example.label
            return [Patch(name, image, label, 0, height, 0, width)]
        stride = self._patch - self._overlap
        return [
            Patch(
                f"{example.image_id}_{y}_{y + self._patch}_{x}_{x + self._patch}",
                example.image,
                example.label,
                y,
                y + self._patch,
                x,
                x + self._patch,
            )
            for y in window_starts(max(height, self._patch), self._patch, stride)
            for x in window_starts(max(width, self._patch), self._patch, stride)
        ]

    def _cut(
        self, patch: Patch
    ) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
        """Copy a window; what lies outside is 0 in the photograph, 255 in the mask."""
        rows, columns = slice(patch.top, patch.bottom), slice(patch.left, patch.right)
        with self._lock:
            if self._opened is None or self._opened[0] is not patch.image:
                self._opened = None  # Before the next is decoded: one at a time.
                self._opened = patch.image, self._open_photograph(patch)
            opened = self._opened[1]
            if isinstance(opened, ValueError):
                raise PreparationError(str(opened))
            image, labels = opened
            image, labels = image[rows, columns].copy(), labels[rows, columns].copy()
        below = patch.bottom - patch.top - labels.shape[0]
        right = patch.right - patch.left - labels.shape[1]
        padding = ((0, below), (0, right))
        ignored = self.spec.ignore_label
        return (
            np.pad(image, (*padding, (0, 0))),
            np.pad(labels, padding, constant_values=ignored),
        )

    def _open_photograph(self, patch: Patch) -> _Opened | ValueError:
        """Decode photograph and mask; a fault is kept, for all of its patches."""
        try:
            name = str(patch.label)
            mask = decode_image(read_file(patch.label), name)
            labels = colours_to_ids(mask, self.spec.colours, name)
            del mask
            contents = read_file(patch.image)
            image = decode_image(contents, str(patch.image))
        except ValueError as error:
            return error
        if png_size(contents) != image.shape[:2]:
            return ValueError(f"{patch.image}: must be an upright PNG. Replace it.")
        if image.shape[:2] != labels.shape:
            return ValueError(
                f"{patch.image}: photograph and mask must have one size: got "
                f"{image.shape[:2]} and {labels.shape} (height, width). Replace the "
                "one that is wrong."
            )
        return image, labels


def _photographs(folder: RawFolder) -> list[RawExample]:
    """Match photographs and colour masks by name, wherever below a split they lie."""
    images, masks = (
        {path.rpartition("/")[2]: file for path, file in found.items()}
        for found in (
            {
                path: file
                for path, file in files_by_name(folder, ".png").items()
                if "_instance_" not in path.rpartition("/")[2]
            },
            files_by_name(folder, _MASK_ENDING),
        )
    )
    if images and masks and images.keys() != masks.keys():
        name = min(images.keys() ^ masks.keys())
        raise PreparationError(
            f"{folder}: {name} has no {'mask' if name in images else 'photograph'} "
            f"({len(images)} photographs, {len(masks)} masks *{_MASK_ENDING}). "
            "Complete the folder."
        )
    return [
        RawExample(name, images[name], masks[name]) for name in sorted(images) if masks
    ]


if __name__ == "__main__":
    sys.exit(main(Isaid))
