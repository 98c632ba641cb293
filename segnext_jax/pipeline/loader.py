"""The endless stream of training batches: one seed, one order, however it is read.

Batch n is a function of (seed, n) alone. It does not depend on threads, on worker
processes or on where a run was interrupted; with several processes each reads its share
of the same global batch. So the number of the next batch is the whole state.
"""

import dataclasses
import functools
import math

import numpy as np

from segnext_jax.pipeline.class_sampling import count_classes, example_probabilities
from segnext_jax.pipeline.order import (
    Order,
    ShuffledEpochs,
    WeightedDraws,
    augmentation_rng,
)
from segnext_jax.pipeline.sources import Source
from segnext_jax.pipeline.stream import Batch, BatchStream, Share, check_at_least
from segnext_jax.pipeline.transforms import RandomScaleCropFlip


class TrainLoader(BatchStream):
    """Iterate over training batches for ever.

    Each batch is a dict of `image`, uint8 [local batch, height, width, 3], RGB,
    `label`, uint8 [local batch, height, width], and `size`, int32 [local batch, 2],
    height and width of the part that is not padding.

    Examples are shuffled anew in each epoch; epochs follow each other without a gap, so
    that a batch may hold the end of one and the start of the next. There are no epochs
    with `rare_class_temperature`: each example is drawn by itself, see
    `segnext_jax.pipeline.class_sampling`.

    Worker processes are spawned: they import the main module of the program, whose work
    must be under `if __name__ == "__main__"`.
    """

    def __init__(
        self,
        source: Source,
        *,
        num_classes: int,
        batch_size: int,
        crop_size: tuple[int, int],
        base_scale: tuple[int, int],
        seed: int,
        ignore_label: int = 255,
        scale_range: tuple[float, float] = (0.5, 2.0),
        max_class_share: float = 0.75,
        flip_probability: float = 0.5,
        rotation_probability: float = 0.0,
        max_rotation: float = 10.0,
        rare_class_temperature: float | None = None,
        process_index: int = 0,
        process_count: int = 1,
        num_workers: int = 0,
        num_threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        """Check the options; nothing is read before the first batch is asked for.

        Args:
            source: The examples; picklable if `num_workers` is not 0.
            num_classes: Ids 0..num_classes-1 are classes.
            batch_size: Examples per step over all processes.
            crop_size: (height, width) of the crops.
            base_scale: (long, short) bounds of the resized image at ratio 1.
            seed: Seed of order and augmentation.
            ignore_label: Id of ignored pixels and of padding.
            scale_range: Smallest and largest ratio of the random scale.
            max_class_share: Largest share of one class in a crop; 1 for no bound.
            flip_probability: Probability of mirroring.
            rotation_probability: Probability of turning a crop.
            max_rotation: Largest angle to either side, in degrees.
            rare_class_temperature: None to use each example once an epoch; else each is
                drawn with a probability that favours rare classes, the more the
                smaller this is. All label maps are read once for that.
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
        check_at_least(1, num_classes=num_classes, base_scale=min(base_scale))
        height, width = crop_size
        check_at_least(1, **{"crop height": height, "crop width": width})
        low, high = scale_range
        if not 0 < low <= high or math.isinf(high):
            raise ValueError(
                "scale_range must be two positive numbers, the smaller one first: got "
                f"{scale_range}. The official range is (0.5, 2.0)."
            )
        if not 0 < max_class_share <= 1:
            raise ValueError(
                f"max_class_share must lie in (0, 1]: got {max_class_share}. Use 1 for "
                "no bound."
            )
        for name, value in (
            ("flip_probability", flip_probability),
            ("rotation_probability", rotation_probability),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1]: got {value}.")
        if not 0 <= max_rotation <= 180:
            raise ValueError(f"max_rotation must lie in [0, 180]: got {max_rotation}.")
        if rare_class_temperature is not None and rare_class_temperature <= 0:
            raise ValueError(
                "rare_class_temperature must be greater than 0, or None: got "
                f"{rare_class_temperature}."
            )
        if not len(source):
            raise ValueError(f"nothing to train on: {source!r} holds no example.")
        self._source = source
        self._transform = RandomScaleCropFlip(
            num_classes=num_classes,
            ignore_label=ignore_label,
            crop_size=crop_size,
            base_scale=base_scale,
            scale_range=scale_range,
            max_class_share=max_class_share,
            flip_probability=flip_probability,
            rotation_probability=rotation_probability,
            max_rotation=max_rotation,
        )
        self._rare_class_temperature = rare_class_temperature
        self._seed = seed
        self._share = Share(batch_size, process_index, process_count)

    def num_examples(self) -> int:
        """Return the number of examples of the source."""
        return len(self._source)

    def image_ids(self, number: int) -> list[str]:
        """Return the names of all images of a batch, over all processes.

        Args:
            number: Of the batch, from 0.
        """
        places = self._share.all_places(number)
        return [self._source[self._order[place]]["image_id"] for place in places]

    @functools.cached_property
    def _order(self) -> Order:
        if self._rare_class_temperature is None:
            return ShuffledEpochs(len(self._source), self._seed)
        counts = count_classes(self._source, self._transform.num_classes)
        probabilities = example_probabilities(counts, self._rare_class_temperature)
        return WeightedDraws(np.cumsum(probabilities), self._seed)

    def _make_batch(self) -> "_MakeBatch":
        return _MakeBatch(
            self._source, self._order, self._transform, self._seed, self._share
        )


@dataclasses.dataclass(frozen=True)
class _MakeBatch:
    """Make this process's share of a batch.

    Crops are written where they belong in the batch: stacking them afterwards, as
    grain's own batch does, costs a fifth of the whole, most of it for fresh memory.
    """

    source: Source
    order: Order
    transform: RandomScaleCropFlip
    seed: int
    share: Share

    def __call__(self, number: int) -> Batch:
        places = self.share.places(number)
        crop_size = self.transform.crop_size
        batch = {
            "image": np.empty((len(places), *crop_size, 3), np.uint8),
            "label": np.empty((len(places), *crop_size), np.uint8),
            "size": np.empty((len(places), 2), np.int32),
        }
        for place, image, label, size in zip(places, *batch.values(), strict=True):
            # An example's draws depend on its place in the global order alone.
            rng = augmentation_rng(self.seed, place)
            example = self.source[self.order[place]]
            size[:] = self.transform.write(example, rng, image, label)
        return batch
