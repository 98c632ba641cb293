"""An endless stream of training batches that can begin anywhere, on grain.

Batch n is a function of n alone. It does not depend on threads, on worker processes or
on where a run was interrupted. If a run has several processes, each makes its share of
the same global batch. So the number of the next batch is the whole state. The number of
examples is stored beside it, so that a warning can tell when the data set has changed.
"""

import abc
import atexit
import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import flags, logging

from segnext_jax.pipeline import workers

# Number of batches: more than any run takes.
_ENDLESS = 2**62

Batch = dict[str, np.ndarray]

# The streams that were started, as long as they live.
_OPEN: "weakref.WeakSet[BatchStream]" = weakref.WeakSet()


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of each global batch that one process makes.

    Attributes:
      batch_size: Examples per step over all processes.
      process_index: Number of this process among those of the run.
      process_count: Number of processes of the run.
    """

    batch_size: int
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible numbers.

        Raises:
          ValueError: If the processes cannot share the batch evenly.
        """
        check_at_least(1, batch_size=self.batch_size, process_count=self.process_count)
        index, count = self.process_index, self.process_count
        if not 0 <= index < count:
            raise ValueError(f"process_index must lie in [0, {count}): got {index}.")
        if self.batch_size % count:
            raise ValueError(
                "the batch size must be a multiple of the number of processes: got "
                f"{self.batch_size} examples and {count} processes. Use "
                f"{max(1, self.batch_size // count) * count} or "
                f"{(self.batch_size // count + 1) * count}."
            )

    def places(self, number: int) -> range:
        """Return the places in the endless order of this process's part of a batch.

        The places follow each other, as the rows of the global array do. So a row holds
        the same example, however many processes there are.
        """
        size = self.batch_size // self.process_count
        start = self.process_index * size
        return self.all_places(number)[start : start + size]

    def all_places(self, number: int) -> range:
        """Return the places of a batch, over all processes."""
        start = number * self.batch_size
        return range(start, start + self.batch_size)


class BatchStream(Iterator[Batch]):
    """Iterate over the batches that a function makes, for ever.

    Worker processes are spawned: they import the main module of the program, whose work
    must be under `if __name__ == "__main__"`.
    """

    def __init__(
        self,
        *,
        batch_bytes: int,
        num_workers: int = 0,
        num_threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        """Check the options; nothing is made before the first batch is asked for.

        Args:
          batch_bytes: Size of a batch of this process.
          num_workers: Processes that make batches; 0 for threads of this process.
          num_threads: Threads that make batches, in each process that does.
          prefetch: Batches made ahead, by each process that makes batches.

        Raises:
          ValueError: If an option is impossible, or the batches of the workers do not
            fit into the shared memory.
        """
        check_at_least(0, num_workers=num_workers)
        check_at_least(1, num_threads=num_threads, prefetch=prefetch)
        self._shared_bytes = workers.shared_bytes(num_workers, prefetch, batch_bytes)
        workers.check_shared_memory(self._shared_bytes)
        self._num_workers = num_workers
        self._num_threads = num_threads
        self._prefetch = prefetch
        # Grain's iterator while it runs, in a list, because the finalizer of a dropped
        # stream shares the list.
        self._running: list[Any] = []
        weakref.finalize(self, _stop, self._running).atexit = False
        self.next_batch = 0

    @abc.abstractmethod
    def _make_batch(self) -> Callable[[int], Batch]:
        """Return the function from a number to its batch; picklable for workers."""

    @abc.abstractmethod
    def num_examples(self) -> int:
        """Return the number of examples in an epoch."""

    @abc.abstractmethod
    def image_ids(self, number: int) -> list[str]:
        """Return the names of all images of a batch, over all processes."""

    def __iter__(self) -> "BatchStream":
        """Return the stream itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
          ValueError: If an example cannot be used; the message names the example.
          ChildProcessError: If a worker process has died.
        """
        if not self._running:
            self._running.append(iter(self._dataset()))
            _close_at_exit(self)
        try:
            batch = next(self._running[0])
        except ValueError as error:
            self.close()
            # The error's sentence is enough: drop grain's frames and notes.
            raise ValueError(str(error)) from None
        except RuntimeError as error:
            self.close()
            raise workers.death(error, self._shared_bytes) or error from None
        except BaseException:
            # Nothing sensible follows an error, and no worker must be left behind.
            self.close()
            raise
        self.next_batch += 1
        if self._num_workers:
            # Out of shared memory, whose life ends with grain's array object.
            batch = {name: np.array(array) for name, array in batch.items()}
        return batch

    def state(self) -> dict[str, int]:
        """Return what `restore` needs to go on from here."""
        return {"next_batch": self.next_batch, "num_examples": self.num_examples()}

    def restore(self, state: dict[str, int]) -> None:
        """Go on where a stream with the same options was when it gave this state.

        Args:
          state: A value of `state()`; older ones lack the number of examples. Where
            it was another, a warning is logged.

        Raises:
          ValueError: If no stream can have given this state.
        """
        next_batch = state.get("next_batch")
        if not isinstance(next_batch, int | np.integer) or next_batch < 0:
            raise ValueError(
                "the state of a loader is {'next_batch': n} with n of at least 0: got "
                f"{state}."
            )
        before, now = state.get("num_examples"), self.num_examples()
        if before not in (None, now):
            logging.warning(
                "There are %d training examples, and there were %d when the checkpoint "
                "was written. The run goes on with those of now: its numbers are no "
                "longer those of an unbroken run.",
                *(now, before),
            )
        self.close()
        self.next_batch = int(next_batch)

    def close(self) -> None:
        """Stop threads and worker processes; the next batch would start new ones."""
        _stop(self._running)

    def __enter__(self) -> "BatchStream":
        """Return the stream, to be closed at the end of the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the stream."""
        self.close()

    def _dataset(self) -> Any:
        # Imported here, because grain imports JAX where it is installed, and the
        # package promises that importing the pipeline does not.
        import grain

        batches = grain.MapDataset.range(self.next_batch, _ENDLESS)
        dataset = batches.map(self._make_batch()).to_iter_dataset(
            grain.ReadOptions(
                num_threads=self._num_threads, prefetch_buffer_size=self._prefetch
            )
        )
        if not self._num_workers:
            return dataset
        if not flags.FLAGS.is_parsed():
            # Grain's process pool reads absl flags, which only absl's `app.run`
            # parses; elsewhere (a notebook, a test) their defaults will do.
            flags.FLAGS.mark_as_parsed()
        return dataset.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=self._num_workers, per_worker_buffer_size=self._prefetch
            ),
            worker_init_fn=workers.start,
        )


def check_at_least(lowest: int, **values: int) -> None:
    """Refuse a value below the lowest.

    Raises:
      ValueError: If a value is below ``lowest``.
    """
    for name, value in values.items():
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}: got {value}.")


def _close_at_exit(stream: BatchStream) -> None:
    # atexit runs the last registered function first. Grain has imported multiprocessing
    # by now, so this function runs before multiprocessing ends the threads and
    # processes that an orderly stop still needs.
    _OPEN.add(stream)
    atexit.unregister(_close_open_streams)
    atexit.register(_close_open_streams)


def _close_open_streams() -> None:
    for stream in list(_OPEN):
        stream.close()


def _stop(running: list[Any]) -> None:
    while running:
        running.pop().close()
