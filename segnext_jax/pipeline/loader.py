"""The endless stream of training batches: one seed, one order, however it is read.

Batch n is a function of (seed, n) alone. It does not depend on threads, on worker
processes or on where a run was interrupted. If a run has several processes, each reads
its share of the same global batch. So the number of the next batch is the whole state.
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np

from segnext_jax.pipeline.class_sampling import count_classes, example_probabilities
from segnext_jax.pipeline.order import (
    Order,
    ShuffledEpochs,
    WeightedDraws,
    augmentation_rng,
)
from segnext_jax.pipeline.stream import Batch, BatchStream, Share


@runtime_checkable
class Transform(Protocol):
    """What makes a row of a training batch of a stored example."""

    def empty(self, num_examples: int) -> Batch:
        """Return the arrays of a batch, to be written."""
        ...

    def write(
        self, example: Any, rng: np.random.Generator, batch: Batch, row: int
    ) -> None:
        """Write one example into a row of a batch.

        Raises:
          ValueError: If the example cannot be used.
        """
        ...


class TrainLoader(BatchStream):
    """Iterate over training batches for ever.

    Examples are shuffled anew in each epoch; epochs follow each other without a gap, so
    that a batch may hold the end of one and the start of the next. There are no epochs
    with `data.rare_class_temperature`: each example is drawn by itself, see
    `segnext_jax.pipeline.class_sampling`.

    Worker processes are spawned: they import the main module of the program, whose work
    must be under `if __name__ == "__main__"`.
    """

    def __init__(
        self,
        source: Any,
        transform: Transform,
        config: Any,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """Check what must fit together; nothing is read before the first batch.

        Args:
          source: The examples, see `segnext_jax.pipeline.sources`; picklable if there
            are worker processes.
          transform: What a batch holds of each.
          config: A run's configuration: ``batch_size``, over all processes, ``seed``
            and the section ``data``.
          process_index: Number of this process among those of the run.
          process_count: Number of processes of the run.

        Raises:
          ValueError: If the processes cannot share a batch, the batches of the workers
            do not fit into the shared memory, or the source is empty.
        """
        self._share = Share(config.batch_size, process_index, process_count)
        row_bytes = sum(array.nbytes for array in transform.empty(1).values())
        super().__init__(
            batch_bytes=len(self._share.places(0)) * row_bytes,
            num_workers=config.data.num_workers,
            num_threads=config.data.num_threads,
            prefetch=config.data.prefetch_batches,
        )
        if not len(source):
            raise ValueError(f"nothing to train on: {source!r} holds no example.")
        self._source = source
        self._transform = transform
        self._seed = config.seed
        self._rare_class_temperature = config.data.rare_class_temperature

    def num_examples(self) -> int:
        """Return the number of examples of the source."""
        return len(self._source)

    def image_ids(self, number: int) -> list[str]:
        """Return the names of all images of a batch, over all processes.

        Args:
          number: The batch's number, from 0.
        """
        places = self._share.all_places(number)
        return [self._source[self._order[place]]["image_id"] for place in places]

    @functools.cached_property
    def _order(self) -> Order:
        if self._rare_class_temperature is None:
            return ShuffledEpochs(len(self._source), self._seed)
        # Only segmentation has this option, and its transform knows the number.
        num_classes = self._transform.num_classes  # pyright: ignore[reportAttributeAccessIssue]
        counts = count_classes(self._source, num_classes)
        probabilities = example_probabilities(counts, self._rare_class_temperature)
        return WeightedDraws(np.cumsum(probabilities), self._seed)

    def _make_batch(self) -> "_MakeBatch":
        return _MakeBatch(
            self._source, self._order, self._transform, self._seed, self._share
        )


@dataclasses.dataclass(frozen=True)
class _MakeBatch:
    """Make this process's share of a batch.

    The transform writes crops into their places in the batch. To stack crops
    afterwards, as grain's own batch does, costs a fifth of the whole time, mostly for
    fresh memory.
    """

    source: Any
    order: Order
    transform: Transform
    seed: int
    share: Share

    def __call__(self, number: int) -> Batch:
        places = self.share.places(number)
        batch = self.transform.empty(len(places))
        for row, place in enumerate(places):
            # An example's draws depend on its place in the global order alone.
            rng = augmentation_rng(self.seed, place)
            self.transform.write(self.source[self.order[place]], rng, batch, row)
        return batch
