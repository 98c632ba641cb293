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

Where there are lists, they decide. Where there is no val, every fifth photograph of
train, or of a folder without splits, is in val, chosen by a hash of its name. `images`
may also be called `img_dir`, `masks` also `annotations`, `labels` or `ann_dir`.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from absl import logging

from segnext_jax.datasets.file_tree import comparable_name, walk_files
from segnext_jax.datasets.pairs import RawExample
from segnext_jax.datasets.text_files import read_lines

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = ("images", "img_dir")
MASK_FOLDERS = ("masks", "annotations", "labels", "ann_dir")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp")
_NUM_SHOWN = 5
# The split of a folder that has none, and a single pair.
WHOLE = "all"
_PAIRS_PER_VAL = 5
DIVIDED = (
    "there is no split val, so that every fifth photograph, chosen by its name, is val "
    "(frames of one video need images/val or val.txt)"
)


@dataclasses.dataclass(frozen=True)
class Scan:
    """What was found in a folder.

    Attributes:
      splits: The pairs of each split that is meant to be, in the order of their
        names; none where the faults tell why.
      faults: Sentences about files that cannot be used.
      is_divided: Whether val is a part of what is there, for want of one.
    """

    splits: dict[str, list[RawExample]]
    faults: list[str]
    is_divided: bool = False


def find_splits(folder: str | os.PathLike[str]) -> dict[str, list[RawExample]]:
    """List the pairs of a folder.

    Args:
      folder: The folder; the module's docstring has the layouts.

    Returns:
      The pairs of each split, in the order of their names.

    Raises:
      FileNotFoundError: If the folder, or a folder that it must contain, is missing.
      ValueError: If files do not match, or a list names a file that does not exist.
    """
    scan = scan_folder(folder)
    if scan.faults:
        raise ValueError(
            f"photographs and masks of {folder} must match by name: "
            f"{'; '.join(scan.faults)}. Add, rename or remove files."
        )
    if scan.is_divided:
        # Once: training and validation each look.
        logging.log_first_n(logging.INFO, "%s: %s.", 1, folder, DIVIDED)
    return scan.splits


def scan_folder(folder: str | os.PathLike[str]) -> Scan:
    """List the pairs of a folder, and what keeps other files from being pairs.

    Args:
      folder: The folder; the module's docstring has the layouts.

    Raises:
      FileNotFoundError: If the folder, or a folder that it must contain, is missing.
      ValueError: If the name of a file is not UTF-8.
    """
    root = Path(folder).expanduser()
    images_dir = _subfolder(root, IMAGE_FOLDERS, "photographs")
    masks_dir = _subfolder(root, MASK_FOLDERS, "masks")
    lists = {split: root / f"{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in lists.items() if path.is_file()}
    faults: list[str] = []
    if lists:
        pairs, unmatched = _match(images_dir, masks_dir, faults)
        splits = {
            split: _listed(path, pairs, unmatched, images_dir, faults)
            for split, path in lists.items()
        }
        return _with_val(splits, faults)
    names = [split for split in SPLITS if (images_dir / split).is_dir()]
    folders = {split: (images_dir / split, masks_dir / split) for split in names}
    splits = {}
    for split, (images, masks) in (folders or {WHOLE: (images_dir, masks_dir)}).items():
        splits[split] = []
        if masks.is_dir():
            pairs, _ = _match(images, masks, faults)
            splits[split] = list(pairs.values())
        else:
            faults.append(f"{images} has no folder of masks {masks}")
    return _with_val(splits, faults)


def _with_val(splits: dict[str, list[RawExample]], faults: list[str]) -> Scan:
    """Divide what is there if there is no val; more photographs change few places."""
    whole = next((name for name in ("train", WHOLE) if name in splits), None)
    if "val" in splits or whole is None or len(splits[whole]) < 2:
        return Scan(splits, faults)
    pairs = {pair.image_id: pair for pair in splits[whole]}
    order = sorted(pairs, key=lambda name: hashlib.sha256(name.encode()).digest())
    val = set(order[: max(1, len(order) // _PAIRS_PER_VAL)])
    divided = {
        "train": [pair for name, pair in pairs.items() if name not in val],
        "val": [pair for name, pair in pairs.items() if name in val],
    }
    rest = {name: found for name, found in splits.items() if name != whole}
    return Scan(divided | rest, faults, is_divided=True)


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
) -> tuple[dict[str, RawExample], set[str]]:
    """Return the pairs by name, and the names without a partner, which are faults."""
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
                f"{few(lossy)} (export them anew as PNG)"
            )
        if other := [name for name in missing if name not in lossy]:
            faults.append(f"photographs in {images_dir} without a mask: {few(other)}")
    if missing := sorted(masks.keys() - images.keys()):
        faults.append(
            f"masks in {masks_dir} without a photograph: {few(missing)}"
            + _common_ending(missing, images)
        )
    names = sorted(images.keys() & masks.keys())
    _note_decomposed_names(
        images_dir, masks_dir, [(images[n], masks[n]) for n in names]
    )
    pairs = {name: RawExample(name, images[name], masks[name]) for name in names}
    return pairs, images.keys() ^ masks.keys()


def _note_decomposed_names(
    images_dir: Path, masks_dir: Path, pairs: Sequence[tuple[Path, Path]]
) -> None:
    count = sum(
        image.relative_to(images_dir).with_suffix("")
        != mask.relative_to(masks_dir).with_suffix("")
        for image, mask in pairs
    )
    if count:
        logging.warning(
            "%d names in %s and %s differ only in how accents are written (Unicode NFC "
            "and NFD): taken as equal.",
            *(count, images_dir, masks_dir),
        )


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
    special = []
    for path in walk_files(folder) if folder.is_dir() else ():
        if path.suffix.lower() not in suffixes:
            continue
        if not path.is_file():
            special.append(str(path))
            continue
        key = comparable_name(path.relative_to(folder).with_suffix("").as_posix())
        if key in files:
            faults.append(f"{files[key]} and {path} differ in their suffix only")
        files.setdefault(key, path)
    if special:
        faults.append(f"pipes, devices or links to nothing, not files: {few(special)}")
    return files


def _listed(
    path: Path,
    pairs: Mapping[str, RawExample],
    unmatched: set[str],
    images_dir: Path,
    faults: list[str],
) -> list[RawExample]:
    try:
        lines = read_lines(path)
    except ValueError as error:
        faults.append(str(error).rstrip("."))
        return []
    found: dict[str, RawExample] = {}
    unknown, repeated = [], []
    for number, line in enumerate(lines, start=1):
        if not (name := comparable_name(line.strip())):
            continue
        stem, suffix = os.path.splitext(name)
        is_file = suffix.lower() in IMAGE_SUFFIXES
        key = stem if is_file and stem in pairs else name
        if key in pairs:
            if key in found:
                repeated.append(f"line {number} {name!r}")
            found[key] = pairs[key]
        # A photograph without a mask is reported already.
        elif name not in unmatched and not (is_file and stem in unmatched):
            unknown.append((number, name))
    if unknown:
        shown = [
            f"line {number} {name!r}{_right_line(name, pairs)}"
            for number, name in unknown[:_NUM_SHOWN]
        ]
        shown += [""] * (len(unknown) - len(shown))  # Counted, not shown.
        fault = (
            f"{path} names no pair of {images_dir}: {few(shown)}; a line is a "
            'photograph\'s path below that folder, as "a/1" or "a/1.jpg"'
        )
        if (images_dir / path.stem).is_dir():
            fault += (
                f" ({path.name} decides because it is there: without it, the folder "
                f"{images_dir / path.stem} is the split)"
            )
        faults.append(fault)
    if repeated:
        faults.append(f"{path} names pairs twice: {few(repeated)}")
    if not any(line.strip() for line in lines):
        faults.append(f"{path} names nothing")
    return [found[key] for key in sorted(found)]


def _right_line(line: str, pairs: Mapping[str, RawExample]) -> str:
    """Return what the line should be, if a pair fits: for paths and for columns."""
    for text in (line, re.split(r"[\s,;]+", line)[0]):
        parts = PurePath(text.strip("\"'").replace("\\", "/")).parts
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            for key in (name, os.path.splitext(name)[0]):
                if key in pairs:
                    return f" (write {key!r})"
        stem = os.path.splitext(parts[-1])[0] if parts else ""
        nested = [key for key in pairs if key.rpartition("/")[2] == stem]
        if len(nested) == 1:
            return f" (write {nested[0]!r})"
    return ""


def few(names: Sequence[str], limit: int = 5) -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
