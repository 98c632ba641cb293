"""What one photograph and its mask hold: sizes, ids, sums, faults."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from segnext_jax.check_dataset.target import Pair
from segnext_jax.datasets.spec import Colour
from segnext_jax.images.decode import (
    check_sizes,
    decode_colours,
    decode_image,
    decode_label,
)
from segnext_jax.images.decoders import exif_orientation, stored_mode
from segnext_jax.images.headers import read_header
from segnext_jax.images.masks import MaskReader

# If a mask has more colours than this (a photograph?), the others are not counted.
_MAX_COLOURS = 64
# Bytes of a mask whose colours are counted at once: temporaries take ten times as much.
_BLOCK_BYTES = 2**24
# What must be strays around a stray that does not lie on a boundary.
_INSIDE = np.ones((7, 7), np.uint8)


def _no_pixels() -> Any:
    return dataclasses.field(default_factory=lambda: np.zeros(3, np.int64))


@dataclasses.dataclass
class Facts:
    """What was found in a pair; what could not be found out keeps its default.

    Attributes:
      split: Name of the split.
      image_id: Name of the photograph.
      faults: Sentences about files that cannot be used.
      size: (height, width) of the photograph.
      file_format: Format and kind of pixels of its file, as Pillow names them.
      orientation: Its EXIF orientation.
      digest: Hash of its pixels.
      channel_sums: Sum of its pixels, RGB.
      channel_squares: Sum of their squares.
      counts: Number of pixels of each id that the mask holds, before
        `MaskReader.train_ids`; of a colour mask, of each train id.
      num_strays: Pixels whose id is no class and not ignored.
      num_inner_strays: Those around which a square of seven pixels is all strays.
      num_speckles: Labelled pixels whose id none of their four neighbours has.
      colours: Pixels of each colour that stands in no table, if the mask has such.
      num_colours: Number of these colours, the uncounted ones included.
    """

    split: str
    image_id: str
    faults: list[str] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None
    file_format: str = "unknown"
    orientation: int = 1
    digest: bytes = b""
    channel_sums: Int64[np.ndarray, "3"] = _no_pixels()
    channel_squares: Int64[np.ndarray, "3"] = _no_pixels()
    counts: Int64[np.ndarray, "256"] | None = None
    num_strays: int = 0
    num_inner_strays: int = 0
    num_speckles: int = 0
    colours: collections.Counter[Colour] = dataclasses.field(
        default_factory=collections.Counter
    )
    num_colours: int = 0

    @property
    def name(self) -> str:
        """Split and name of the photograph."""
        return f"{self.split}/{self.image_id}"


def inspect_all(
    pairs: Sequence[Pair], masks: MaskReader, num_threads: int
) -> Iterator[Facts]:
    """Inspect pairs in several threads; the order is kept.

    Args:
      pairs: The pairs.
      masks: How masks are read.
      num_threads: Number of threads.
    """
    with concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
        try:
            yield from executor.map(functools.partial(inspect, masks=masks), pairs)
        finally:
            executor.shutdown(cancel_futures=True)


def inspect(pair: Pair, masks: MaskReader) -> Facts:
    """Read a pair and find out what it holds.

    Args:
      pair: The pair.
      masks: How masks are read.

    Returns:
      Everything, faults included; what a user can cause raises nothing.
    """
    try:
        image_id, encoded, mask = pair.read()
    except (OSError, ValueError) as error:
        return Facts(pair.split, " ".join(pair.files), [str(error)])
    facts = Facts(pair.split, image_id)
    image_name, label_name = pair.files or (facts.name, facts.name)
    image = labels = None
    try:
        image = decode_image(encoded, image_name)
        _describe_image(facts, image, encoded)
    except ValueError as error:
        facts.faults.append(str(error))
    try:
        labels = _read_mask(facts, mask, masks, label_name)
    except ValueError as error:
        facts.faults.append(str(error))
    if image is not None and labels is not None:
        try:
            check_sizes(image, labels, encoded, image_name)
        except ValueError as error:
            facts.faults.append(str(error))
    return facts


def _describe_image(
    facts: Facts, image: UInt8[np.ndarray, "height width 3"], encoded: bytes
) -> None:
    facts.size = image.shape[:2]
    header = read_header(encoded)
    names = stored_mode(encoded, header)
    facts.file_format = " ".join(names) if all(names) else header.format
    facts.orientation = exif_orientation(encoded)
    pixels = np.ascontiguousarray(image)
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    facts.digest = digest.digest()
    levels = np.arange(256)
    histograms = np.stack(
        [
            cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel()
            for channel in range(3)
        ]
    ).astype(np.int64)
    facts.channel_sums = histograms @ levels
    facts.channel_squares = histograms @ levels**2


def _read_mask(
    facts: Facts, mask: bytes, masks: MaskReader, name: str
) -> np.ndarray | None:
    """Count the ids of a mask; return it, or None if only its colours are known."""
    if masks.mask_values == "colours":
        _count_colours(facts, decode_colours(mask, name), masks)
        if facts.num_colours:
            return None
        raw = masks.read(mask, name)
        table = np.arange(256)
    else:
        try:
            raw = decode_label(mask, name)
        except ValueError as error:
            # If colours are the reason, they are worth more than the reason.
            try:
                colours = decode_colours(mask, name)
            except ValueError:
                raise error from None
            if (colours == colours[..., :1]).all():
                raise
            _count_colours(facts, colours, masks)
            return None
        table = masks.train_ids
    facts.counts = np.bincount(raw.ravel(), minlength=256)
    is_stray = ((table < 0) | (table >= masks.num_classes)) & (
        table != masks.ignore_label
    )
    strays = is_stray[raw]
    facts.num_strays = int(np.count_nonzero(strays))
    if facts.num_strays:
        inner = cv2.erode(strays.astype(np.uint8), _INSIDE)
        facts.num_inner_strays = int(np.count_nonzero(inner))
    facts.num_speckles = int(np.count_nonzero(_speckles(raw) & (raw != 255)))
    return raw


def _count_colours(
    facts: Facts, mask: UInt8[np.ndarray, "height width 3"], masks: MaskReader
) -> None:
    """Count the colours that are not in the table."""
    blocks = []
    for rows in np.array_split(mask, -(-mask.size // _BLOCK_BYTES)):
        red, green, blue = (rows[..., i].astype(np.uint32) for i in range(3))
        blocks.append(np.unique(red << 16 | green << 8 | blue, return_counts=True))
    codes = np.concatenate([block for block, _ in blocks])
    found, places = np.unique(codes, return_inverse=True)
    counts = np.bincount(places, np.concatenate([numbers for _, numbers in blocks]))
    known = [
        red << 16 | green << 8 | blue
        for red, green, blue in (*masks.colours, *masks.ignore_colours)
    ]
    is_unknown = ~np.isin(found, known)
    found, counts = found[is_unknown], counts[is_unknown]
    facts.num_colours = len(found)
    for index in np.argsort(-counts, kind="stable")[:_MAX_COLOURS]:
        code = int(found[index])
        colour = code >> 16, code >> 8 & 255, code & 255
        facts.colours[colour] = int(counts[index])


def _speckles(
    labels: UInt8[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Return the pixels that none of their four neighbours equals."""
    is_alone = np.ones(labels.shape, bool)
    same = labels[1:] == labels[:-1]
    is_alone[1:] &= ~same
    is_alone[:-1] &= ~same
    same = labels[:, 1:] == labels[:, :-1]
    is_alone[:, 1:] &= ~same
    is_alone[:, :-1] &= ~same
    return is_alone
