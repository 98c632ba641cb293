"""All jobs of a command: images and videos, then archives for the servers."""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from absl import logging

from segnext_jax.cli.progress import SECONDS_PER_LINE, Progress
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS
from segnext_jax.predict.benchmark_formats import write_archive
from segnext_jax.predict.images import Failure, predicted
from segnext_jax.predict.jobs import Job, Options
from segnext_jax.predict.predictor import Predictor
from segnext_jax.predict.shards import Shard

# Failures that are named at the end; the log names each when it comes.
MAX_NAMED = 1_000


class Summary(NamedTuple):
    """What came of a command.

    Attributes:
      num_inputs: All inputs, those that were done before, too.
      num_failures: Those that could not be predicted.
      failures: The first `MAX_NAMED` of these.
    """

    num_inputs: int
    num_failures: int
    failures: list[Failure]


def run(
    predictor: Predictor, parts: Iterable[Sequence[Job]], options: Options
) -> Summary:
    """Do what is planned; say which inputs could not be predicted, and why.

    Archives are made only of complete sets, because a server refuses others.

    A video that ends early keeps its outputs, and is among the failures.

    Args:
      predictor: The network.
      parts: See `jobs.plan`. A sequence is all that there is; else the parts are asked
        for one after the other.
      options: What is written, and where.

    Raises:
      OSError: If an output cannot be written.
      FloatingPointError: If the network's scores are not numbers.
      ValueError: If none of the inputs can be read, or what is to be continued is
        another prediction.
    """
    shard = Shard(options, predictor.spec, {"network": predictor.address})
    total = None
    if isinstance(parts, Sequence) and not options.has_part_files:
        total = sum(1 for jobs in parts for job in jobs if job.paths)
    reporter = _Reporter(total)
    try:
        for job, outcome in predicted(predictor, shard.todo(parts), options):
            shard.finish(job, outcome)
            reporter.report(outcome if isinstance(outcome, Failure) else None)
    except BaseException as error:
        shard.abandon(error)
        raise
    finally:
        reporter.close()
    if shard.num_done:
        logging.info("%d of %d inputs were done.", shard.num_done, shard.num_inputs)
    num_failures = reporter.num_failures + len(shard.failures)
    failures = [*shard.failures, *reporter.failures][:MAX_NAMED]
    shard.end(num_failures)
    if reporter.num_unreadable and reporter.num_unreadable == shard.num_inputs:
        raise ValueError(
            f"at least one input must be readable: none of {shard.num_inputs} is. The "
            f"first: {failures[0].reason}"
        )
    if not failures and isinstance(parts, Sequence):
        _write_archives([job for jobs in parts for job in jobs], options)
    logging.info("Predictions are in %s.", options.output)
    return Summary(shard.num_inputs, num_failures, failures)


class _Reporter:
    """Counts the inputs that are done, and keeps some of those that failed."""

    def __init__(self, total: int | None):
        self.failures: list[Failure] = []
        self.num_failures = self.num_unreadable = 0
        self._count = 0
        self._start = time.monotonic()
        self._progress = Progress(
            total, description="predict", seconds_per_line=SECONDS_PER_LINE
        )

    def report(self, failure: Failure | None) -> None:
        """Take note of one input."""
        self._count += 1
        self._progress.advance()
        if failure is not None:
            self.num_failures += 1
            self.num_unreadable += not failure.has_outputs
            if len(self.failures) < MAX_NAMED:
                self.failures.append(failure)
            logging.info(f"left out: {failure.reason}")
        pace = self._count / max(time.monotonic() - self._start, 1e-9)
        values = {"left out": str(self.num_failures), "images/s": f"{pace:.1f}"}
        self._progress.report(self._count, values)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.close()


def _write_archives(jobs: Sequence[Job], options: Options) -> None:
    for name in options.formats:
        suffix = BENCHMARK_FORMATS[name].archive if name in BENCHMARK_FORMATS else None
        if suffix is None:
            continue
        if options.has_manifest:
            logging.info(
                "No %s%s of a list, a shard, a tar or a table: predict the folder with "
                "--format=%s --existing=skip alone, when all is done.",
                *(name, suffix, name),
            )
            continue
        archive = options.output / f"{name}{suffix}"
        paths = [path for job in jobs for path in job.all_paths(name)]
        write_archive(archive, options.output / name, paths)
        logging.info("Written for the server: %s", archive)
