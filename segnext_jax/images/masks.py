"""What the pixels of a user's masks mean: ids, shifted or mapped ids, colours."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8

from segnext_jax.datasets.resolve import class_table
from segnext_jax.datasets.spec import Colour
from segnext_jax.images.decode import decode_colours, decode_label

MASK_VALUES = ("ids", "colours")
_BLOCK_PIXELS = 1 << 18  # Temporaries take 20 bytes per pixel of a block.
# What tools call pixels that nobody has labelled.
NOTHING = (
    *("null", "void", "none", "nothing", "ignore", "ignored", "unlabelled"),
    *("unlabeled", "unannotated", "undefined", "no data", "nodata", "no label"),
)


@dataclasses.dataclass(frozen=True)
class MaskReader:
    """Read masks of one convention as train ids.

    Attributes:
      num_classes: Number of classes.
      mask_values: "ids": the masks hold numbers (grey or palette files); "colours":
        they hold the colours of the classes.
      colours: (red, green, blue) of each class, for "colours".
      ignore_colours: Colours of ignored pixels, for "colours".
      zero_is_ignore: Id 0 of the masks means nothing, and classes begin at 1.
      id_map: (id in the masks, train id) pairs, which are then all ids that may occur
        besides the ignore label; empty: they are train ids.
      ignore_label: Train id of ignored pixels; masks may hold it, too.
    """

    num_classes: int
    mask_values: str = "ids"
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    zero_is_ignore: bool = False
    id_map: tuple[tuple[int, int], ...] = ()
    ignore_label: int = 255

    def __post_init__(self) -> None:
        """Refuse conventions that contradict each other.

        Raises:
          ValueError: If the conventions contradict each other.
        """
        if self.mask_values not in MASK_VALUES:
            raise ValueError(
                f"mask_values must be one of {', '.join(MASK_VALUES)}: got "
                f"{self.mask_values!r}."
            )
        are_colours = self.mask_values == "colours"
        if are_colours + self.zero_is_ignore + bool(self.id_map) > 1:
            raise ValueError(
                'of mask_values="colours", zero_is_ignore and id_map only one can '
                "apply: they say in different ways what the masks hold. Keep one."
            )
        if are_colours and len(self.colours) != self.num_classes:
            raise ValueError(
                "masks of colours need the colour of each class: got "
                f"{len(self.colours)} colours and {self.num_classes} classes. Write "
                'lines as "road 128 64 128" into classes.txt.'
            )
        sources = [source for source, _ in self.id_map]
        targets = {target for _, target in self.id_map} - {self.ignore_label}
        if (
            len(set(sources)) != len(sources)
            or not all(0 <= source <= 255 for source in sources)
            or not all(0 <= target < self.num_classes for target in targets)
        ):
            raise ValueError(
                "id_map must pair different ids in [0, 255] with train ids in [0, "
                f"{self.num_classes - 1}] or {self.ignore_label} (ignored): got "
                f"{self.id_map}."
            )

    @functools.cached_property
    def train_ids(self) -> Int16[np.ndarray, "256"]:
        """Train id of each id that masks may hold; -1 where `id_map` has none.

        Ids beyond the classes stay what they are, for `check_labels` to refuse.
        """
        table = np.arange(256, dtype=np.int16)
        if self.zero_is_ignore:
            table -= 1
            table[0] = self.ignore_label
        if self.id_map:
            table[:] = -1
            for source, target in self.id_map:
                table[source] = target
        if table[self.ignore_label] < 0 or self.zero_is_ignore:
            table[self.ignore_label] = self.ignore_label
        return table

    def read(self, encoded: bytes, name: str) -> UInt8[np.ndarray, "h w"]:
        """Decode a mask.

        Args:
          encoded: Contents of the file.
          name: Its name, for error messages.

        Returns:
          One train id per pixel; whether each is a class `check_labels` tells.

        Raises:
          ValueError: If the mask cannot be decoded, or holds a colour or an id that has
            no train id.
        """
        if self.mask_values == "colours":
            ids = [*range(self.num_classes)]
            ids += [self.ignore_label] * len(self.ignore_colours)
            return colours_to_ids(
                decode_colours(encoded, name),
                (*self.colours, *self.ignore_colours),
                name,
                ids,
            )
        raw = decode_label(encoded, name)
        if not self.zero_is_ignore and not self.id_map:
            return raw
        labels = self.train_ids[raw]
        if labels.min() < 0:
            unknown = np.unique(raw[labels < 0]).tolist()
            raise ValueError(
                f"{name}: each id of the mask must stand in id_map: {unknown} do not. "
                "Add them (255 as their train id ignores them)."
            )
        return labels.astype(np.uint8)


def check_names(classes: Sequence[str], zero_is_ignore: bool) -> None:
    """Refuse class names that `zero_is_ignore` would shift by one.

    Args:
      classes: Names in train-id order.
      zero_is_ignore: Id 0 of the masks means nothing, and classes begin at 1.

    Raises:
      ValueError: If the name of the first class is a word for what id 0 means already.
    """
    if zero_is_ignore and classes[0].strip().lower() in NOTHING:
        raise ValueError(
            "with zero_is_ignore, id 0 is no class and id 1 is the first: classes.txt "
            f"begins with {classes[0]!r}, so that id 1 would get that name, and each "
            f"id after it the name before its own. Remove the line {classes[0]!r} from "
            "classes.txt (or leave zero_is_ignore out)."
        )


def mask_reader(data: Any) -> MaskReader:
    """Return how the masks of a folder are read.

    Args:
      data: The section `data` of a configuration, its name "folder".

    Raises:
      FileNotFoundError: If the folder or its classes.txt is missing.
      ValueError: If the conventions contradict each other or the classes.
    """
    table = class_table(data)
    return MaskReader(
        num_classes=len(table.classes),
        mask_values=data.mask_values,
        colours=table.colours,
        ignore_colours=table.ignore_colours,
        zero_is_ignore=data.zero_is_ignore,
        id_map=tuple(map(tuple, data.id_map)),
    )


def colours_to_ids(
    mask: UInt8[np.ndarray, "h w 3"],
    colours: Sequence[Colour],
    name: str,
    ids: Sequence[int] | None = None,
) -> UInt8[np.ndarray, "h w"]:
    """Replace each colour by its id.

    Args:
      mask: RGB pixels.
      colours: The (red, green, blue) triples that may occur.
      name: Name of the mask's file, for the error message.
      ids: One id in [0, 255] per colour; their positions in `colours` when left out.

    Raises:
      ValueError: If a pixel has a colour that is not in the table, or the table gives
        one colour two ids.
    """
    ids = range(len(colours)) if ids is None else ids
    table = _colour_table(tuple(map(tuple, colours)), tuple(ids))
    height, width = mask.shape[:2]
    labels = np.empty((height, width), np.uint8)
    rows = max(1, _BLOCK_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        block = mask[top : top + rows].astype(np.uint32)
        block[..., 0] <<= 16
        block[..., 1] <<= 8
        found = table[block[..., 0] | block[..., 1] | block[..., 2]]
        if (found < 0).any():
            y, x = np.argwhere(found < 0)[0].tolist()
            colour = tuple(mask[top + y, x].tolist())
            raise ValueError(
                f"{name}: colours of the mask must be among the {len(colours)} of the "
                f"colour table: found {colour} at row {top + y}, column {x}. Correct "
                "the mask or the table (red, green, blue; saved without loss?)."
            )
        labels[top : top + rows] = found
    return labels


@functools.lru_cache(maxsize=2)
def _colour_table(
    colours: tuple[tuple[int, ...], ...], ids: tuple[int, ...]
) -> np.ndarray:
    """Return the id of each 24-bit colour, -1 where there is none (32 MiB)."""
    if len(ids) != len(colours) or not all(0 <= i <= 255 for i in ids):
        raise ValueError(
            "a colour table needs one id in [0, 255] per colour: got "
            f"{len(colours)} colours and ids {list(ids)}. Complete it."
        )
    table = np.full(1 << 24, -1, np.int16)
    for colour, class_id in zip(colours, ids, strict=True):
        red, green, blue = colour
        code = red << 16 | green << 8 | blue
        if table[code] not in (-1, class_id):
            raise ValueError(
                f"a colour of a colour table must have one id: {colour} has "
                f"{table[code]} and {class_id}. Give each class its own colour."
            )
        table[code] = class_id
    return table
