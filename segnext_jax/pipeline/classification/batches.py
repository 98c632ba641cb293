"""Batches of photographs with one class each, once over a split, to evaluate."""

import concurrent.futures
from collections.abc import Iterator

import numpy as np

from segnext_jax.pipeline.classification.resized_crop import (
    central_crop,
    decode_photograph,
)
from segnext_jax.pipeline.classification.sources import Photographs
from segnext_jax.pipeline.geometry import Size
from segnext_jax.pipeline.stream import Batch, Share


def photograph_eval_batches(
    source: Photographs,
    *,
    batch_size: int,
    crop_size: Size,
    crop_share: float,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
) -> Iterator[Batch]:
    """Iterate once over all photographs.

    The last batch is filled up with copies whose `mask` is False. All processes get the
    same number of batches, each its own rows of every global batch.

    Args:
      source: The photographs.
      batch_size: Photographs per batch over all processes.
      crop_size: See `segnext_jax.pipeline.classification.resized_crop.central_crop`.
      crop_share: Likewise.
      process_index: Number of this process among those of the run.
      process_count: Number of processes of the run.
      num_threads: Threads that decode.

    Yields:
      `image`, uint8 [local batch, height, width, 3], RGB; `label`, int32 [local
      batch]; `mask`, bool [local batch], False for copies.

    Raises:
      ValueError: If an option is impossible, or a photograph cannot be decoded.
    """
    share = Share(batch_size, process_index, process_count)
    if not len(source):
        raise ValueError(f"nothing to evaluate: {source!r} holds no photograph.")

    def read(place: int) -> tuple[np.ndarray, int, bool]:
        photograph = source[min(place, len(source) - 1)]
        image = central_crop(decode_photograph(photograph), crop_size, crop_share)
        return image, photograph["label"], place < len(source)

    num_batches = -(-len(source) // batch_size)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
        ahead = executor.map(read, share.places(0))
        for number in range(num_batches):
            images, labels, mask = zip(*ahead, strict=True)
            if number + 1 < num_batches:
                ahead = executor.map(read, share.places(number + 1))
            yield {
                "image": np.stack(images),
                "label": np.array(labels, np.int32),
                "mask": np.array(mask),
            }
