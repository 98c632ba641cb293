"""Colour masks: from (red, green, blue) pixels to ids."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.spec import Colour

_BLOCK_PIXELS = 1 << 18  # Temporaries take 20 bytes per pixel of a block.


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

    Returns:
        One id per pixel.

    Raises:
        ValueError: A pixel has a colour that is not in the table, or the table gives
            one colour two ids.
    """
    ids = range(len(colours)) if ids is None else ids
    table = _table(tuple(map(tuple, colours)), tuple(ids))
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
def _table(colours: tuple[tuple[int, ...], ...], ids: tuple[int, ...]) -> np.ndarray:
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
