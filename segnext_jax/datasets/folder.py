"""A user's own folder: where the photographs, masks and splits are.

    FOLDER/classes.txt                 see `class_table`
    FOLDER/images/train/a/1.jpg        photographs, nested or not
    FOLDER/masks/train/a/1.png         masks, at the same paths below
    FOLDER/images/val/...              likewise val and, where there is one, test
    FOLDER/masks/val/...

or, with one folder of photographs for all splits,

    FOLDER/images/a/1.jpg
    FOLDER/masks/a/1.png
    FOLDER/train.txt                   one photograph per line, "a/1" or "a/1.jpg"
    FOLDER/val.txt

Where there are lists, they decide. `images` may also be called `img_dir`, `masks` also
`annotations`, `labels` or `ann_dir`.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from segnext_jax.datasets.pairs import RawExample

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = ("images", "img_dir")
MASK_FOLDERS = ("masks", "annotations", "labels", "ann_dir")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp")
# The split of a folder that has none.
WHOLE = "all"


@dataclasses.dataclass(frozen=True)
class Scan:
    """What was found in a folder.

    Attributes:
        splits: The pairs of each split, in the order of their names.
        faults: Sentences about files that cannot be used.
    """

    splits: dict[str, list[RawExample]]
    faults: list[str]


def find_splits(folder: str | os.PathLike[str]) -> dict[str, list[RawExample]]:
    """List the pairs of a folder.

    Args:
        folder: The folder; the module's docstring has the layouts.

    Returns:
        The pairs of each split, in the order of their names. A folder without splits
        has one, "all".

    Raises:
        FileNotFoundError: The folder, or one in it that must be there, is missing.
        ValueError: Files do not match, or a list names what is not there.
    """
    scan = scan_folder(folder)
    if scan.faults:
        raise ValueError(
            f"photographs and masks of {folder} must match by name: "
            f"{'; '.join(scan.faults)}. Add, rename or remove files."
        )
    return scan.splits


def scan_folder(folder: str | os.PathLike[str]) -> Scan:
    """List the pairs of a folder, and what keeps other files from being pairs.

    Args:
        folder: The folder; the module's docstring has the layouts.

    Returns:
        The pairs of each split that has any, and the faults.

    Raises:
        FileNotFoundError: The folder, or one in it that must be there, is missing.
    """
    root = Path(folder).expanduser()
    images_dir = _subfolder(root, IMAGE_FOLDERS, "photographs")
    masks_dir = _subfolder(root, MASK_FOLDERS, "masks")
    lists = {split: root / f"{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in lists.items() if path.is_file()}
    faults: list[str] = []
    if lists:
        pairs = _match(images_dir, masks_dir, faults)
        splits = {
            split: _listed(path, pairs, images_dir, faults)
            for split, path in lists.items()
        }
        return Scan(splits, faults)
    names = [split for split in SPLITS if (images_dir / split).is_dir()]
    folders = {split: (images_dir / split, masks_dir / split) for split in names}
    splits = {}
    for split, (images, masks) in (folders or {WHOLE: (images_dir, masks_dir)}).items():
        if masks.is_dir():
            splits[split] = list(_match(images, masks, faults).values())
        else:
            faults.append(f"{images} has no folder of masks {masks}")
    return Scan(splits, faults)


def _subfolder(root: Path, names: Sequence[str], kind: str) -> Path:
    present = [root / name for name in names if (root / name).is_dir()]
    if len(present) == 1:
        return present[0]
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}. Correct its name.")
    found = " and ".join(map(str, present)) or "none of these"
    raise FileNotFoundError(
        f"{root} must have one folder of {kind}, called {' or '.join(names)}: found "
        f"{found}. Rename or remove folders."
    )


def _match(
    images_dir: Path, masks_dir: Path, faults: list[str]
) -> dict[str, RawExample]:
    """Return the pairs by name; add to the faults what has no partner."""
    images = _files_by_name(images_dir, IMAGE_SUFFIXES, faults)
    masks = _files_by_name(masks_dir, MASK_SUFFIXES, faults)
    if not images:
        faults.append(f"{images_dir} holds no file {', '.join(IMAGE_SUFFIXES)}")
    if missing := sorted(images.keys() - masks.keys()):
        lossy = [
            name
            for name in missing
            if (masks_dir / f"{name}.jpg").exists()
            or (masks_dir / f"{name}.jpeg").exists()
        ]
        if lossy:
            faults.append(
                f"masks in {masks_dir} are JPEG files, which do not keep ids: "
                f"{few(lossy)}"
            )
        if other := [name for name in missing if name not in lossy]:
            faults.append(f"photographs in {images_dir} without a mask: {few(other)}")
    if missing := sorted(masks.keys() - images.keys()):
        faults.append(
            f"masks in {masks_dir} without a photograph: {few(missing)}"
            + _common_ending(missing, images)
        )
    names = sorted(images.keys() & masks.keys())
    return {name: RawExample(name, images[name], masks[name]) for name in names}


def _common_ending(masks: Sequence[str], images: dict[str, Path]) -> str:
    """Say so if the names of masks are those of photographs and a common ending."""
    endings = {
        mask[len(image) :]
        for mask in masks[:1]
        for image in images
        if mask.startswith(image)
    }
    for ending in sorted(endings, key=len):
        if all(mask.removesuffix(ending) in images for mask in masks):
            return f" (their names end with {ending!r}: rename them without it)"
    return ""


def _files_by_name(
    folder: Path, suffixes: Sequence[str], faults: list[str]
) -> dict[str, Path]:
    """Return the files by their paths below a folder, without suffixes."""
    files: dict[str, Path] = {}
    # Links are followed: data sets are large, and often lie elsewhere.
    for parent, _, names in os.walk(folder, followlinks=True):
        # Hidden files are not photographs, whatever they are called (._1.jpg).
        for name in (n for n in sorted(names) if not n.startswith(".")):
            path = Path(parent, name)
            if path.suffix.lower() not in suffixes:
                continue
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in files:
                faults.append(f"{files[key]} and {path} differ in their suffix only")
            files.setdefault(key, path)
    return files


def _listed(
    path: Path, pairs: dict[str, RawExample], images_dir: Path, faults: list[str]
) -> list[RawExample]:
    found: dict[str, RawExample] = {}
    unknown, repeated = [], []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not (name := line.strip()):
            continue
        stem, suffix = os.path.splitext(name)
        key = stem if suffix.lower() in IMAGE_SUFFIXES and stem in pairs else name
        if key not in pairs:
            unknown.append(f"line {number} {name!r}")
        elif key in found:
            repeated.append(f"line {number} {name!r}")
        else:
            found[key] = pairs[key]
    if unknown:
        faults.append(f"{path} names no pair of {images_dir}: {few(unknown)}")
    if repeated:
        faults.append(f"{path} names pairs twice: {few(repeated)}")
    if not found and not unknown:
        faults.append(f"{path} names nothing")
    return [found[key] for key in sorted(found)]


def few(names: Sequence[str], limit: int = 5) -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
