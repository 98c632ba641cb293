"""What the masks of a folder say of themselves: colours, ids from 1, 0 and 255."""

import collections
import concurrent.futures
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from segnext_jax.datasets.class_table import ClassTable
from segnext_jax.datasets.folder import scan_folder
from segnext_jax.datasets.pairs import RawExample, read_file
from segnext_jax.datasets.resolve import FOLDER, class_table
from segnext_jax.datasets.spec import Colour
from segnext_jax.images.decode import decode_colours, decode_label
from segnext_jax.images.masks import NOTHING

# Fields that say what masks hold. Where a user sets one, the user says it all.
FIELDS = (
    *("data.mask_values", "data.zero_is_ignore", "data.id_map"),
    *("data.classes", "data.colours", "data.ignore_colours"),
)
_IGNORED = 255
# Masks that are looked at, evenly from the whole; more would take minutes.
_MAX_MASKS = 2000
# Masks with more colours were compressed or resized: the check says so.
_MAX_COLOURS = 64
_BLACK = (0, 0, 0)


def is_open(data: Any, overrides: Sequence[str]) -> bool:
    """Return whether masks may speak for themselves.

    Args:
      data: The section `data` of a configuration.
      overrides: What the user has set, ``"data.zero_is_ignore=true"``, ...
    """
    is_set = any(text.startswith(FIELDS) for text in overrides)
    is_set = is_set or data.mask_values != "ids" or data.zero_is_ignore
    return data.name == FOLDER and not (is_set or data.id_map or data.classes)


def adopt(data: Any) -> list[str]:
    """Set what the masks of a folder say; return what it is, in sentences.

    Args:
      data: The section `data` of a configuration, its name "folder"; it is changed.

    Raises:
      FileNotFoundError: If there are no folders of photographs and masks.
      ValueError: If the name of a file is not UTF-8.
    """
    splits = scan_folder(data.folder).splits
    pairs = [pair for split in splits.values() for pair in split]
    try:
        table = class_table(data)
    except FileNotFoundError:
        table = None
    except ValueError:
        return []  # The check says what is wrong with the file.
    ids, colours = _seen([pairs[i] for i in evenly(len(pairs), _MAX_MASKS)])
    if colours:
        return _adopt_colours(data, table, colours)
    return _adopt_ids(data, table, ids)


def evenly(total: int, at_most: int) -> list[int]:
    """Return places from the first to the last of ``total``, all if they fit."""
    places = np.linspace(0, total - 1, min(total, at_most)).round().astype(int)
    return places.tolist()


def _seen(pairs: Sequence[RawExample]) -> tuple[set[int], collections.Counter[Colour]]:
    """Return the ids of masks, and the pixels of each colour of masks of colours."""
    ids: set[int] = set()
    colours: collections.Counter[Colour] = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        for found, found_colours in executor.map(_seen_in_mask, pairs):
            ids |= found
            colours += found_colours
    return ids, colours


def _seen_in_mask(pair: RawExample) -> tuple[set[int], collections.Counter[Colour]]:
    colours: collections.Counter[Colour] = collections.Counter()
    try:
        encoded = read_file(pair.label)
        try:
            return set(
                np.unique(decode_label(encoded, pair.image_id)).tolist()
            ), colours
        except ValueError:
            mask = decode_colours(encoded, pair.image_id).astype(np.uint32)
    except (OSError, ValueError):
        return set(), colours  # The check names the file.
    codes = mask[..., 0] << 16 | mask[..., 1] << 8 | mask[..., 2]
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        colours[int(code) >> 16, int(code) >> 8 & 255, int(code) & 255] = int(count)
    return set(), colours


def _adopt_colours(
    data: Any, table: ClassTable | None, colours: collections.Counter[Colour]
) -> list[str]:
    if len(colours) > _MAX_COLOURS or (table is not None and not table.colours):
        return []
    data.mask_values = "colours"
    if table is not None:
        return ["the masks hold the colours of classes.txt."]
    ignored = [_BLACK] if _BLACK in colours and len(colours) > 2 else []
    shown = [colour for colour, _ in colours.most_common() if colour not in ignored]
    data.classes = tuple("colour {:02x}{:02x}{:02x}".format(*c) for c in shown)
    data.colours, data.ignore_colours = tuple(shown), tuple(ignored)
    black = ", and black is ignored" if ignored else ""
    return [
        f"there is no classes.txt: the {len(shown)} colours of the masks are the "
        f'classes{black}. Name them there, as "road 128 64 128".'
    ]


def _adopt_ids(data: Any, table: ClassTable | None, ids: set[int]) -> list[str]:
    found = sorted(ids - {_IGNORED})
    names = table.classes if table else None
    if found == [0] and _IGNORED in ids and len(names or "12") == 2:
        data.id_map = ((0, 0), (_IGNORED, 1))
        if names is None:
            data.classes = ("background", "foreground")
        return ["the masks hold 0 and 255 only: 255 is the second class."]
    if names is None:
        return _name_ids(data, found)
    if found and found[-1] == len(names) and names[0].strip().lower() not in NOTHING:
        data.zero_is_ignore = True
        return [
            f"the ids of the masks end at {len(names)}, with {len(names)} classes: the "
            "classes begin at 1, and 0 is ignored."
        ]
    return []


def _name_ids(data: Any, found: Sequence[int]) -> list[str]:
    if not found:
        return []
    data.classes = tuple(f"id {i}" for i in found)
    if list(found) != list(range(len(found))):
        data.id_map = tuple((i, place) for place, i in enumerate(found))
    return [
        f"there is no classes.txt: the {len(found)} ids of the masks are the classes. "
        "Name them there, one a line in the order of the ids."
    ]
