"""Batches for evaluation: every example exactly once, one input size per batch."""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.images.decode import check_labels, decode_label, png_size
from segnext_jax.pipeline.fitting import Fitting
from segnext_jax.pipeline.geometry import Size
from segnext_jax.pipeline.sources import Example, Source
from segnext_jax.pipeline.stream import Share
from segnext_jax.pipeline.transforms import decode_pair


class EvaluationBatches:
    """A source in batches of one input size; may be iterated any number of times.

    Examples whose inputs have one size come together, in the order in which the sizes
    first occur; among them those of one original size, in the source's order. The last
    batch of a size is filled up with copies whose `mask` is False. All processes get
    the same number of batches of the same shapes, each its own rows of every global
    batch. At most two batches are in memory besides the one that the caller holds.
    """

    def __init__(
        self,
        source: Source,
        fitting: Fitting,
        *,
        num_classes: int,
        batch_size: int,
        ignore_label: int = 255,
        max_examples: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
        num_threads: int = 2,
    ) -> None:
        """Check the options; nothing is read yet.

        Args:
          source: The examples.
          fitting: How images become inputs of the network.
          num_classes: Ids 0..num_classes-1 are classes.
          batch_size: Examples per batch over all processes.
          ignore_label: Id of ignored pixels.
          max_examples: At most so many, evenly from the whole source; None for all.
          process_index: Number of this process among those of the run.
          process_count: Number of processes of the run.
          num_threads: Threads that decode.

        Raises:
          ValueError: If an option is impossible, or there is nothing to evaluate.
        """
        rows = Share(batch_size, process_index, process_count).places(0)
        total = len(source)
        self.num_examples = min(total, total if max_examples is None else max_examples)
        if self.num_examples < 1:
            raise ValueError(f"nothing to evaluate: {source!r} holds no example.")
        self._indices = [
            (2 * i + 1) * total // (2 * self.num_examples)
            for i in range(self.num_examples)
        ]
        self._source = source
        self._fitting = fitting
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self._batch_size = batch_size
        self._rows = slice(rows.start, rows.stop)
        self._num_threads = num_threads

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._plan)

    @functools.cached_property
    def input_sizes(self) -> list[Size]:
        """Sizes of the network's input that occur, ordered."""
        image_sizes = {size for rows in self._plan for size in rows.image_sizes}
        fitted = itertools.chain(*map(self._fitting.sizes, image_sizes))
        return sorted({size.outer for size in fitted})

    def __iter__(self) -> Iterator[LabelledBatch]:
        """Read and decode, one batch ahead.

        Raises:
          ValueError: If an example cannot be used; the message names the example.
        """
        with concurrent.futures.ThreadPoolExecutor(self._num_threads) as executor:

            def submit(rows: "_Rows") -> list[concurrent.futures.Future]:
                # A copy shares the decoded example with its original.
                local = rows.indices[self._rows]
                futures = {
                    index: executor.submit(self._read, index)
                    for index in dict.fromkeys(local)
                }
                return [futures[index] for index in local]

            try:
                ahead = submit(self._plan[0])
                for number, rows in enumerate(self._plan):
                    examples = [future.result() for future in ahead]
                    if number + 1 < len(self._plan):
                        ahead = submit(self._plan[number + 1])
                    yield self._batch(rows, examples)
            finally:
                executor.shutdown(cancel_futures=True)

    @functools.cached_property
    def _plan(self) -> list["_Rows"]:
        """The rows of every batch, from the headers of all label maps."""
        size_of = functools.partial(_label_size, self._source)
        with concurrent.futures.ThreadPoolExecutor(self._num_threads) as executor:
            sizes = list(executor.map(size_of, self._indices))
        groups: dict[tuple[Size, ...], dict[Size, list[int]]] = {}
        image_sizes = dict(zip(self._indices, sizes, strict=True))
        for index, size in image_sizes.items():
            inputs = tuple(fitted.outer for fitted in self._fitting.sizes(size))
            groups.setdefault(inputs, {}).setdefault(size, []).append(index)

        plan = []
        for group in groups.values():
            indices = [index for same_size in group.values() for index in same_size]
            for start in range(0, len(indices), self._batch_size):
                filled = indices[start : start + self._batch_size]
                num_copies = self._batch_size - len(filled)
                is_real = [True] * len(filled) + [False] * num_copies
                filled += [filled[-1]] * num_copies
                rows = _Rows(
                    indices=filled,
                    is_real=is_real,
                    image_sizes=tuple(image_sizes[index] for index in filled),
                )
                plan.append(rows)
        return plan

    def _read(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray, str]:
        example: Example = self._source[index]
        image_id = example["image_id"]
        image, labels = decode_pair(example)
        check_labels(labels, self._num_classes, self._ignore_label, image_id)
        return self._fitting.images(image), labels, image_id

    def _batch(self, rows: "_Rows", examples: list) -> LabelledBatch:
        images, labels, image_ids = zip(*examples, strict=True)
        return LabelledBatch(
            images=tuple(np.stack(ratio) for ratio in zip(*images, strict=True)),
            fitted_sizes=tuple(
                zip(*(self._fitting.sizes(s) for s in rows.image_sizes), strict=True)
            ),
            image_sizes=rows.image_sizes,
            first_row=self._rows.start,
            labels=labels,
            mask=np.array(rows.is_real[self._rows]),
            image_ids=image_ids,
        )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What makes up one batch, over all processes."""

    indices: list[int]
    is_real: list[bool]
    image_sizes: tuple[Size, ...]


def _label_size(source: Source, index: int) -> Size:
    """Return the size of an example, from the header of its label map if possible."""
    example = source[index]
    label = example["label"]
    if isinstance(label, bytes):
        size = png_size(label)
        if size is not None:
            return size
        label = decode_label(label, example["image_id"])
    height, width = label.shape
    return height, width
