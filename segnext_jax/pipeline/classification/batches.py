"""Batches of photographs with one class each: endless ones to train, once to evaluate.

Batch n of training is a function of (seed, n) alone; see `segnext_jax.pipeline.stream`.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline.classification.resized_crop import (
    RandomResizedCrop,
    central_crop,
)
from segnext_jax.pipeline.classification.sources import Photograph, Photographs
from segnext_jax.pipeline.geometry import Size
from segnext_jax.pipeline.order import Order, ShuffledEpochs, augmentation_rng
from segnext_jax.pipeline.stream import Batch, BatchStream, Share, check_at_least


class PhotographLoader(BatchStream):
    """Iterate over training batches of photographs for ever.

    Each batch is a dict of `image`, uint8 [local batch, height, width, 3], RGB, and
    `label`, int32 [local batch]. Photographs are shuffled anew in each epoch; epochs
    follow each other without a gap.
    """

    def __init__(
        self,
        source: Photographs,
        crop: RandomResizedCrop,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        num_workers: int = 0,
        num_threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        """Check the options; nothing is read before the first batch is asked for.

        Args:
            source: The photographs; picklable if `num_workers` is not 0.
            crop: Makes a crop of each.
            batch_size: Photographs per step over all processes.
            seed: Seed of order and augmentation.
            process_index: Number of this process among those of the run.
            process_count: Number of processes of the run.
            num_workers: Processes that make batches; 0 for threads of this process.
            num_threads: Threads that make batches, in each process that does.
            prefetch: Batches made ahead, by each process that makes batches.

        Raises:
            ValueError: An option is impossible, or the source is empty.
        """
        super().__init__(
            num_workers=num_workers, num_threads=num_threads, prefetch=prefetch
        )
        check_at_least(0, seed=seed)
        share = Share(batch_size, process_index, process_count)
        if not len(source):
            raise ValueError(f"nothing to train on: {source!r} holds no photograph.")
        order = ShuffledEpochs(len(source), seed)
        self._batches = _MakeBatch(source, order, crop, seed, share)

    def num_examples(self) -> int:
        """Return the number of photographs of the source."""
        return len(self._batches.source)

    def image_ids(self, number: int) -> list[str]:
        """Return the names of all photographs of a batch, over all processes.

        Args:
            number: Of the batch, from 0.
        """
        source, order = self._batches.source, self._batches.order
        places = self._batches.share.all_places(number)
        return [source[order[place]]["image_id"] for place in places]

    def _make_batch(self) -> "_MakeBatch":
        return self._batches


@dataclasses.dataclass(frozen=True)
class _MakeBatch:
    source: Photographs
    order: Order
    crop: RandomResizedCrop
    seed: int
    share: Share

    def __call__(self, number: int) -> Batch:
        places = self.share.places(number)
        images = np.empty((len(places), *self.crop.crop_size, 3), np.uint8)
        labels = np.empty(len(places), np.int32)
        for row, place in enumerate(places):
            # A crop's draws depend on its place in the global order alone.
            rng = augmentation_rng(self.seed, place)
            photograph = self.source[self.order[place]]
            images[row] = self.crop(_decode(photograph), rng)
            labels[row] = photograph["label"]
        return {"image": images, "label": labels}


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
        ValueError: An option is impossible, or a photograph cannot be decoded.
    """
    share = Share(batch_size, process_index, process_count)
    if not len(source):
        raise ValueError(f"nothing to evaluate: {source!r} holds no photograph.")

    def read(place: int) -> tuple[np.ndarray, int, bool]:
        photograph = source[min(place, len(source) - 1)]
        image = central_crop(_decode(photograph), crop_size, crop_share)
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


def _decode(photograph: Photograph) -> UInt8[np.ndarray, "height width 3"]:
    return decode_image(photograph["image"], photograph["image_id"])
