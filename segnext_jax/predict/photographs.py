"""Photographs to show or to fit to: named ones, or those of the validation split."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.pipeline import open_split
from segnext_jax.predict.inputs import find_inputs


def named_photographs(words: Sequence[str], count: int) -> dict[str, bytes]:
    """Return the contents of image files by name, evenly spread.

    Args:
      words: Files, folders and patterns.
      count: How many, at most.

    Raises:
      ValueError: If a word names no file.
    """
    paths = [item.path for item in find_inputs(words) if not item.is_video]
    return {str(path): path.read_bytes() for path in _spread(paths, count)}


def validation_photographs(
    config: ConfigDict, spec: DatasetSpec, count: int
) -> dict[str, bytes]:
    """Return encoded photographs of the validation split by name, evenly spread.

    Args:
      config: The network's configuration.
      spec: The network's classes.
      count: How many, at most.

    Raises:
      OSError: If the data set is not there.
      ValueError: If the data set cannot be read.
    """
    source = open_split(config.data, spec, spec.val_split)
    examples = (source[int(i)] for i in _spread(range(len(source)), count))
    return {example["image_id"]: example["image"] for example in examples}


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` of them at equal distances, or all."""
    count = min(len(items), count)
    return [items[i * len(items) // count] for i in range(count)]
