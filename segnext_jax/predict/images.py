"""Images through the network: read ahead, in batches, written behind.

Threads of one pool read, decode and fit images and encode and write outputs; two others
feed the devices, so that one batch is put on them and one is fetched while a third is
computed. Each step waits for the next where too much is under way.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from segnext_jax.cli import storage
from segnext_jax.cli.command import counted
from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import files
from segnext_jax.predict.batches import Fitted, split_batch
from segnext_jax.predict.jobs import Job, Options
from segnext_jax.predict.photograph import read_image
from segnext_jax.predict.predictor import Predictor
from segnext_jax.predict.videos import predict_video

# Bytes of encoded files that may be read before their turn.
_READ_AHEAD_BYTES = 2**25
# What is assumed of a file in a bucket, which would have to be asked for.
_BYTES_IN_BUCKET = 2**20
# Bytes of decoded images that wait for others of their size, for each device.
_WAITING_BYTES = 2**28
# Threads that feed the devices, and batches that are in their hands or wait for them.
_NUM_FEEDING = 2
_NUM_BATCHES = 3


class Failure(NamedTuple):
    """An input that could not be predicted.

    Attributes:
      path: Where it is.
      reason: A sentence.
      has_outputs: Whether there are outputs of its readable part.
    """

    path: pathlib.Path
    reason: str
    has_outputs: bool = False


class Sample(NamedTuple):
    """What is left of a predicted image, beside its files.

    Attributes:
      size: (height, width).
      num_pixels: Pixels of each class; 0 where no table is written.
      members: Contents of the files of a tar by format, none where files are written.
    """

    size: tuple[int, int]
    num_pixels: np.ndarray
    members: dict[str, bytes]


# Of a video None.
Outcome = Sample | Failure | None


@dataclasses.dataclass(frozen=True)
class _Image:
    """A decoded image, `fitted` unless it goes block of rows by block of rows."""

    job: Job
    pixels: np.ndarray
    fitted: Fitted | None


def predicted(
    predictor: Predictor, jobs: Iterable[Job], options: Options
) -> Iterator[tuple[Job, Outcome]]:
    """Predict images and videos, write their files, and yield each that is done.

    Images of one part that the network sees at one size go through the network
    together, whatever their order. Images that wait for others, and files that are read
    ahead, are bounded in bytes. A very large image goes alone, block of rows by block
    of rows.

    Args:
      predictor: The network.
      jobs: What to do; it is asked for as far as is read ahead.
      options: How.

    Raises:
      OSError: If an output cannot be written.
      FloatingPointError: If the network's scores are not numbers.
    """
    with (
        concurrent.futures.ThreadPoolExecutor(options.num_threads) as pool,
        concurrent.futures.ThreadPoolExecutor(_NUM_FEEDING) as feeding,
    ):
        running: collections.deque[concurrent.futures.Future] = collections.deque()
        writes: collections.deque = collections.deque()

        def predict(images: list[_Image]) -> list[tuple[Job, Any]]:
            blocks = predictor.predict_batch(
                [image.pixels for image in images],
                options.has_probabilities,
                [image.fitted for image in images if image.fitted is not None],
            )
            return [
                (image.job, pool.submit(_write, image, [block], options, spec))
                for image, block in zip(images, blocks, strict=True)
            ]

        def finished(num_batches: int, num_writes: int) -> Iterator[tuple[Job, Any]]:
            """Wait until so many at most are under way."""
            while len(running) > num_batches:
                writes.extend(running.popleft().result())
            while len(writes) > num_writes:
                job, future = writes.popleft()
                yield job, future.result()

        spec = predictor.spec
        compiled = set()
        full_batch = options.batch_size * predictor.num_devices
        try:
            images = _read(pool, predictor, jobs, options)
            for item in _batches(images, predictor, options):
                if isinstance(item, Job):
                    yield item, _video(predictor, item, options)
                elif isinstance(item, tuple):
                    yield item
                elif item[0].fitted is None:
                    # Alone on the device: it may need all of the memory.
                    yield from finished(0, 2 * full_batch)
                    (image,) = item
                    blocks = predictor.predict_rows(
                        image.pixels, options.has_probabilities
                    )
                    yield image.job, _write(image, blocks, options, spec)
                else:
                    size = predictor.input_sizes(item[0].pixels.shape[:2])[0]
                    if (len(item), size) not in compiled:
                        compiled.add((len(item), size))
                        logging.info(
                            "Compiling for %s of %dx%d at once: this batch takes "
                            "longer.",
                            counted(len(item), "image"),
                            *size,
                        )
                    running.append(feeding.submit(predict, item))
                    yield from finished(_NUM_BATCHES - 1, 2 * full_batch)
            yield from finished(0, 0)
        finally:
            feeding.shutdown(cancel_futures=True)
            pool.shutdown(cancel_futures=True)


def _video(predictor: Predictor, job: Job, options: Options) -> Failure | None:
    try:
        reason = predict_video(predictor, job, options)
        return Failure(job.input.path, reason, True) if reason else None
    except ValueError as error:
        return Failure(job.input.path, str(error))


def _read(
    pool: concurrent.futures.Executor,
    predictor: Predictor,
    jobs: Iterable[Job],
    options: Options,
) -> Iterator[_Image | Job | tuple[Job, Failure]]:
    """Yield in order: decoded images, the jobs of videos, and what is left out."""

    def read(job: Job) -> _Image:
        pixels = read_image(job.input.path)
        size = pixels.shape[:2]
        predictor.input_sizes(size)  # Refuses what is too large.
        is_large = predictor.is_large(size, options.has_probabilities)
        return _Image(job, pixels, None if is_large else predictor.fit(pixels))

    limit = 2 * options.batch_size * predictor.num_devices + options.num_threads
    ahead: collections.deque = collections.deque()
    num_ahead = 0
    rest = iter(jobs)
    job = next(rest, None)
    while job or ahead:
        while job and len(ahead) < limit:
            num_bytes = _num_bytes(job.input.path)
            if ahead and num_ahead + num_bytes > _READ_AHEAD_BYTES:
                break
            future = None if job.input.is_video else pool.submit(read, job)
            ahead.append((job, future, num_bytes))
            num_ahead += num_bytes
            job = next(rest, None)
        first, future, num_bytes = ahead.popleft()
        num_ahead -= num_bytes
        try:
            yield first if future is None else future.result()
        except (OSError, ValueError) as error:
            yield first, Failure(first.input.path, str(error))


def _num_bytes(path: pathlib.Path) -> int:
    if storage.is_bucket(path):
        return _BYTES_IN_BUCKET
    try:
        return path.stat().st_size
    except OSError:
        return 0  # Reading it tells why.


def _batches(
    items: Iterable[_Image | Job | tuple[Job, Failure]],
    predictor: Predictor,
    options: Options,
) -> Iterator[list[_Image] | Job | tuple[Job, Failure]]:
    """Yield images of equal network input together, full batches where possible.

    Batches do not cross the parts of the output: a part is the same whatever comes
    before it, or was done by an earlier process.
    """
    num_devices = predictor.num_devices
    groups: dict[Any, list[_Image]] = {}
    num_bytes = 0
    part = None

    def taken(keys: Iterable[Any]) -> Iterator[list[_Image]]:
        for key in list(keys):
            for batch in split_batch(groups.pop(key), options.batch_size, num_devices):
                yield list(batch)

    for item in items:
        if not isinstance(item, _Image):
            yield item
            continue
        if item.job.part != part:
            yield from taken(groups)
            part, num_bytes = item.job.part, 0
        if item.fitted is None:
            yield [item]
            continue
        key = predictor.input_sizes(item.pixels.shape[:2])
        groups.setdefault(key, []).append(item)
        num_bytes += item.pixels.nbytes
        if len(groups[key]) == options.batch_size * num_devices:
            ready = [key]
        elif num_bytes > _WAITING_BYTES * num_devices:
            ready = [next(iter(groups))]  # The group that began to wait first.
        else:
            continue
        for batch in taken(ready):
            num_bytes -= sum(one.pixels.nbytes for one in batch)
            yield batch
    yield from taken(groups)


def _write(image: _Image, blocks: Any, options: Options, spec: DatasetSpec) -> Sample:
    num_pixels = np.zeros(spec.num_classes, np.int64)
    members = {}
    with contextlib.ExitStack() as stack:
        opened = []
        for name, path in image.job.paths.items():
            if options.container == "tar":
                file = members[name] = io.BytesIO()
            else:
                file = stack.enter_context(files.open_whole(path))
            opened.append(files.begin(name, file, image.pixels, spec, options.files))
        for block in blocks:
            if options.has_table:
                num_pixels += np.bincount(
                    block.labels.ravel(), minlength=spec.num_classes
                )
            for file in opened:
                file.write(block.labels, block.probabilities)
        for file in opened:
            file.close()
    contents = {name: file.getvalue() for name, file in members.items()}
    return Sample(image.pixels.shape[:2], num_pixels, contents)
