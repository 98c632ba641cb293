"""Batches for evaluation: every example exactly once, one size per batch."""

import concurrent.futures
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from segnext_jax.datasets.decode import check_labels, decode_label, png_size
from segnext_jax.pipeline.geometry import Size
from segnext_jax.pipeline.sources import Example, Source
from segnext_jax.pipeline.transforms import decode_pair, resize_for_network


def eval_batches(
    source: Source,
    *,
    num_classes: int,
    batch_size: int,
    scale: tuple[int, int] | None,
    multiple: int = 32,
    ignore_label: int = 255,
    max_examples: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
) -> Iterator[dict[str, Any]]:
    """Iterate once over a source in batches of equal sizes.

    Examples of one size come together, in the order in which the sizes first occur;
    within a size the order is the source's. The last batch of a size is filled up
    with copies whose `mask` is False. All processes get the same number of batches of
    the same shapes, each its own rows of every global batch. At most two batches are
    in memory besides the one that the caller holds.

    Args:
        source: The examples.
        num_classes: Ids 0..num_classes-1 are classes.
        batch_size: Examples per batch over all processes.
        scale: Bounds of the resized image as in `rescaled_size`; None for own size.
        multiple: The network's input is stretched to a multiple of this.
        ignore_label: Id of ignored pixels.
        max_examples: Only the first so many examples; None for all.
        process_index: Number of this process among those of the run.
        process_count: Number of processes of the run.
        num_threads: Threads that decode.

    Yields:
        `image`, uint8 [local batch, height, width, 3], RGB, at the network's size;
        `label`, uint8 [local batch, label height, label width], never resized; `mask`,
        bool [local batch], False for copies; `image_id`, list of str.

    Raises:
        ValueError: An option is impossible, or an example cannot be used.
    """
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise ValueError(
            "the evaluation batch size must be a positive multiple of the number of "
            f"processes: got {batch_size} examples and {process_count} processes. Use "
            f"{process_count}."
        )
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1: got {multiple}.")
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must lie in [0, {process_count}): got {process_index}."
        )
    num_examples = len(source)
    if max_examples is not None:
        num_examples = min(num_examples, max_examples)
    if num_examples < 1:
        raise ValueError(f"nothing to evaluate: {source!r} holds no example.")
    read = functools.partial(
        _read_for_network,
        source,
        scale=scale,
        multiple=multiple,
        num_classes=num_classes,
        ignore_label=ignore_label,
    )
    local = batch_size // process_count
    rows = slice(process_index * local, (process_index + 1) * local)
    return _iterate(source, num_examples, batch_size, rows, read, num_threads)


def _iterate(
    source: Source,
    num_examples: int,
    batch_size: int,
    rows: slice,
    read: Any,
    num_threads: int,
) -> Iterator[dict[str, Any]]:
    with concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
        sizes: dict[Size, list[int]] = {}
        size_of = functools.partial(_label_size, source)
        for index, size in enumerate(executor.map(size_of, range(num_examples))):
            sizes.setdefault(size, []).append(index)

        plan = []
        for indices in sizes.values():
            for start in range(0, len(indices), batch_size):
                filled = indices[start : start + batch_size]
                is_real = [True] * len(filled)
                is_real += [False] * (batch_size - len(filled))
                filled += [filled[-1]] * (batch_size - len(filled))
                plan.append((filled[rows], is_real[rows]))

        def submit(indices: list[int]) -> list[concurrent.futures.Future]:
            # A copy shares the decoded example with its original.
            futures = {i: executor.submit(read, i) for i in dict.fromkeys(indices)}
            return [futures[i] for i in indices]

        try:
            ahead = submit(plan[0][0])
            for number, (_, is_real) in enumerate(plan):
                examples = [future.result() for future in ahead]
                if number + 1 < len(plan):
                    ahead = submit(plan[number + 1][0])
                yield {
                    "image": np.stack([example["image"] for example in examples]),
                    "label": np.stack([example["label"] for example in examples]),
                    "mask": np.array(is_real),
                    "image_id": [example["image_id"] for example in examples],
                }
        finally:
            executor.shutdown(cancel_futures=True)


def _read_for_network(
    source: Source,
    index: int,
    *,
    scale: tuple[int, int] | None,
    multiple: int,
    num_classes: int,
    ignore_label: int,
) -> dict[str, Any]:
    example: Example = source[index]
    image, labels = decode_pair(example)
    check_labels(labels, num_classes, ignore_label, example["image_id"])
    return {
        "image": resize_for_network(image, scale, multiple),
        "label": labels,
        "image_id": example["image_id"],
    }


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
