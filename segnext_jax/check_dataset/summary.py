"""The facts of all pairs together: counts, sizes, histograms, duplicates."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from segnext_jax.check_dataset.inspection import Facts
from segnext_jax.check_dataset.target import Target


@dataclasses.dataclass(frozen=True)
class Split:
    """What a split holds.

    Attributes:
      num_images: Number of pairs.
      raw_counts: Pixels of each id that the masks hold (of colour masks: train id).
      counts: Pixels of each train id; ids without one are not among them.
      images: Number of images in which each train id occurs.
      without_label: Names of images all of whose pixels are ignored.
      sizes: (height, width) of each readable photograph.
      formats: Number of photographs of each format.
    """

    num_images: int
    raw_counts: Int64[np.ndarray, "256"]
    counts: Int64[np.ndarray, "256"]
    images: Int64[np.ndarray, "256"]
    without_label: list[str]
    sizes: list[tuple[int, int]]
    formats: collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a data set holds.

    Attributes:
      target: The data set.
      facts: What was found in each pair.
      splits: The splits by name.
      mean: Mean of the photographs, RGB, in grey levels.
      std: Standard deviation, likewise.
      duplicates: Groups of names whose photographs have the same pixels.
    """

    target: Target
    facts: Sequence[Facts]
    splits: dict[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    duplicates: list[list[Facts]]

    @property
    def raw_counts(self) -> Int64[np.ndarray, "256"]:
        """Pixels of each id that the masks of all splits hold."""
        zeros = np.zeros(256, np.int64)
        return sum((split.raw_counts for split in self.splits.values()), zeros)

    @property
    def counts(self) -> Int64[np.ndarray, "256"]:
        """Pixels of each train id in all splits."""
        zeros = np.zeros(256, np.int64)
        return sum((split.counts for split in self.splits.values()), zeros)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for the JSON report."""
        spec = self.target.spec
        classes = spec.classes if spec else ()
        return {
            "data_set": self.target.name,
            "mean": self.mean,
            "std": self.std,
            "splits": {
                name: {
                    "images": split.num_images,
                    "formats": dict(split.formats),
                    "sizes": sizes_of(split),
                    "pixels_per_raw_id": _nonzero(split.raw_counts),
                    "classes": [
                        {
                            "id": index,
                            "name": class_name,
                            "pixels": int(split.counts[index]),
                            "images": int(split.images[index]),
                        }
                        for index, class_name in enumerate(classes)
                    ],
                    "ignored_pixels": int(split.counts[255]),
                    "images_without_label": split.without_label,
                }
                for name, split in self.splits.items()
            },
            "duplicates": [[f.name for f in group] for group in self.duplicates],
        }


def summarize(target: Target, facts: Sequence[Facts]) -> Summary:
    """Add up the facts.

    Args:
      target: The data set.
      facts: What was found in each of its pairs.
    """
    splits = {
        name: _summarize_split(target, [f for f in facts if f.split == name])
        for name in target.splits
    }
    sizes = [f.size for f in facts if f.size is not None]
    num_pixels = sum(height * width for height, width in sizes) or 1
    zeros = np.zeros(3, np.int64)
    mean = sum((f.channel_sums for f in facts), zeros) / num_pixels
    squares = sum((f.channel_squares for f in facts), zeros) / num_pixels
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    by_digest = collections.defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact)
    return Summary(
        target,
        facts,
        splits,
        tuple(mean.tolist()),
        tuple(std.tolist()),
        [group for group in by_digest.values() if len(group) > 1],
    )


def sizes_of(split: Split) -> dict[str, list[float]]:
    """Return [min, median, max] of height, width and aspect (width / height)."""
    if not split.sizes:
        return {}
    sizes = np.array(split.sizes, float)
    columns = {
        "height": sizes[:, 0],
        "width": sizes[:, 1],
        "aspect": sizes[:, 1] / sizes[:, 0],
    }
    return {
        name: [float(f(values)) for f in (np.min, np.median, np.max)]
        for name, values in columns.items()
    }


def _summarize_split(target: Target, facts: Sequence[Facts]) -> Split:
    raw_counts = np.zeros(256, np.int64)
    counts, images = raw_counts.copy(), raw_counts.copy()
    table = np.arange(256)
    if target.masks.mask_values == "ids":
        table = target.masks.train_ids.astype(int)
    without_label = []
    for fact in facts:
        if fact.counts is None:
            continue
        mapped = np.bincount(
            table[table >= 0], weights=fact.counts[table >= 0], minlength=256
        ).astype(np.int64)
        raw_counts += fact.counts
        counts += mapped
        images += mapped > 0
        if not fact.num_strays and mapped[target.masks.ignore_label] == mapped.sum():
            without_label.append(fact.name)
    return Split(
        len(facts),
        raw_counts,
        counts,
        images,
        without_label,
        [f.size for f in facts if f.size is not None],
        collections.Counter(f.file_format for f in facts if f.size is not None),
    )


def _nonzero(counts: Int64[np.ndarray, "256"]) -> dict[int, int]:
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
