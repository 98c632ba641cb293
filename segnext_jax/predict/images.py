"""Images through the network: read ahead, in batches, written behind."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from segnext_jax.cli.command import counted
from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import files
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS
from segnext_jax.predict.files import LabelFile, PredictionFile
from segnext_jax.predict.jobs import Job, Options
from segnext_jax.predict.predictor import Predictor, read_image, split_batch

# Bytes of encoded files that may be read before their turn.
_READ_AHEAD_BYTES = 2**25
# Bytes of decoded images that wait for others of their size.
_WAITING_BYTES = 2**28


class Failure(NamedTuple):
    """An input that could not be predicted."""

    path: pathlib.Path
    reason: str


@dataclasses.dataclass(frozen=True)
class _Image:
    job: Job
    pixels: np.ndarray


def predict_images(
    predictor: Predictor,
    jobs: Sequence[Job],
    options: Options,
    report_fn: Callable[[Job, Failure | None], None],
) -> None:
    """Predict images and write their outputs.

    Images that the network sees at one size go through the network together, whatever
    their order. Images that wait for others, and files that are read ahead, are bounded
    in bytes. A very large image goes alone, block of rows by block of rows.

    Args:
      predictor: The network.
      jobs: What to do.
      options: How.
      report_fn: Is told each input that is done, or why it is not.

    Raises:
      OSError: If an output cannot be written.
      FloatingPointError: If the network's scores are not numbers.
    """
    with concurrent.futures.ThreadPoolExecutor(options.num_threads) as pool:
        writes: collections.deque = collections.deque()
        compiled = set()
        try:
            for images in _batches(
                _read(pool, predictor, jobs, report_fn), predictor, options
            ):
                size = predictor.input_sizes(images[0].pixels.shape[:2])[0]
                batch = (len(images), size)
                if batch not in compiled:
                    compiled.add(batch)
                    logging.info(
                        "Compiling for %s of %dx%d at once: this batch takes longer.",
                        counted(len(images), "image"),
                        *size,
                    )
                _predict(predictor, images, options, pool, writes)
                _finish(writes, 2 * options.batch_size, report_fn)
            _finish(writes, 0, report_fn)
        finally:
            pool.shutdown(cancel_futures=True)


def _read(
    pool: concurrent.futures.Executor,
    predictor: Predictor,
    jobs: Sequence[Job],
    report_fn: Callable[[Job, Failure | None], None],
) -> Iterator[_Image]:
    """Yield the decoded images in order; report those that cannot be."""

    def read(path: pathlib.Path) -> np.ndarray:
        pixels = read_image(path)
        predictor.input_sizes(pixels.shape[:2])  # Refuses what is too large.
        return pixels

    ahead: collections.deque = collections.deque()
    waiting = collections.deque(jobs)
    while waiting or ahead:
        while waiting:
            num_bytes = _num_bytes(waiting[0].input.path)
            if (
                ahead
                and sum(size for *_, size in ahead) + num_bytes > _READ_AHEAD_BYTES
            ):
                break
            job = waiting.popleft()
            ahead.append((job, pool.submit(read, job.input.path), num_bytes))
        job, future, _ = ahead.popleft()
        try:
            yield _Image(job, future.result())
        except (OSError, ValueError) as error:
            report_fn(job, Failure(job.input.path, str(error)))


def _num_bytes(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # Reading it tells why.


def _batches(
    images: Iterator[_Image], predictor: Predictor, options: Options
) -> Iterator[list[_Image]]:
    """Yield images of equal network input together, full batches where possible."""
    groups: dict[Any, list[_Image]] = {}
    num_bytes = 0
    for image in images:
        size = image.pixels.shape[:2]
        if predictor.is_large(size, options.has_probabilities):
            yield [image]
            continue
        key = predictor.input_sizes(size)
        groups.setdefault(key, []).append(image)
        num_bytes += image.pixels.nbytes
        if len(groups[key]) == options.batch_size:
            ready = [groups.pop(key)]
        elif num_bytes > _WAITING_BYTES:
            # The group that began to wait first.
            ready = split_batch(groups.pop(next(iter(groups))), options.batch_size)
        else:
            continue
        for batch in ready:
            num_bytes -= sum(one.pixels.nbytes for one in batch)
            yield list(batch)
    for group in groups.values():
        for batch in split_batch(group, options.batch_size):
            yield list(batch)


def _predict(
    predictor: Predictor,
    images: list[_Image],
    options: Options,
    pool: concurrent.futures.Executor,
    writes: collections.deque,
) -> None:
    first = images[0]
    if predictor.is_large(first.pixels.shape[:2], options.has_probabilities):
        _write(
            first,
            predictor.predict_rows(first.pixels, options.has_probabilities),
            options,
            predictor.spec,
        )
        writes.append((first.job, None))
        return
    pixels = [image.pixels for image in images]
    blocks = predictor.predict_batch(pixels, options.has_probabilities)
    for image, block in zip(images, blocks, strict=True):
        future = pool.submit(_write, image, [block], options, predictor.spec)
        writes.append((image.job, future))


def _finish(
    writes: collections.deque,
    num_left: int,
    report_fn: Callable[[Job, Failure | None], None],
) -> None:
    """Wait until so many writes at most are under way."""
    while len(writes) > num_left:
        job, future = writes.popleft()
        if future is not None:
            future.result()
        report_fn(job, None)


def _write(image: _Image, blocks: Any, options: Options, spec: DatasetSpec) -> None:
    with contextlib.ExitStack() as stack:
        open_files = []
        for name, path in image.job.paths.items():
            file = stack.enter_context(files.open_whole(path))
            open_files.append(begin_file(name, file, image.pixels, spec, options))
        for block in blocks:
            for file in open_files:
                file.write(block.labels, block.probabilities)
        for file in open_files:
            file.close()


def begin_file(
    name: str, file: Any, pixels: np.ndarray, spec: DatasetSpec, options: Options
) -> PredictionFile:
    """Begin a file of one of the formats."""
    if name not in BENCHMARK_FORMATS:
        return files.begin(name, file, pixels, spec, options.files)
    benchmark = BENCHMARK_FORMATS[name]
    colours = spec.colours if benchmark.has_palette else None
    height, width = pixels.shape[:2]
    return LabelFile(file, (height, width), colours, benchmark.id_of)
