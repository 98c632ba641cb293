"""All jobs of a command: images, then videos, then archives for the servers."""

from collections.abc import Sequence

from absl import logging

from segnext_jax.cli.progress import SECONDS_PER_LINE, Progress
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS
from segnext_jax.predict.benchmark_formats import write_archive
from segnext_jax.predict.images import Failure, predict_images
from segnext_jax.predict.jobs import Job, Options
from segnext_jax.predict.predictor import Predictor
from segnext_jax.predict.videos import predict_video


def run(predictor: Predictor, jobs: Sequence[Job], options: Options) -> list[Failure]:
    """Do what is planned; return the inputs that could not be predicted, and why.

    Archives are made only of complete sets, because a server refuses others.

    A video that ends early keeps its outputs, and is among the failures.

    Raises:
      OSError: If an output cannot be written.
      FloatingPointError: If the network's scores are not numbers.
      ValueError: If none of the inputs can be read.
    """
    todo = [job for job in jobs if job.paths]
    if len(todo) < len(jobs):
        logging.info("%d of %d inputs are done.", len(jobs) - len(todo), len(jobs))
    reporter = _Reporter(len(todo))
    num_incomplete = 0
    try:
        images = [job for job in todo if not job.input.is_video]
        predict_images(predictor, images, options, reporter.report)
        for job in todo:
            if job.input.is_video:
                failure = None
                try:
                    if reason := predict_video(predictor, job, options):
                        failure = Failure(job.input.path, reason)
                        num_incomplete += 1
                except ValueError as error:
                    failure = Failure(job.input.path, str(error))
                reporter.report(job, failure)
    finally:
        reporter.close()
    failures = reporter.failures
    if failures and len(failures) - num_incomplete == len(jobs):
        raise ValueError(
            f"at least one input must be readable: none of {len(jobs)} is. The first: "
            f"{failures[0].reason}"
        )
    if not failures:
        _write_archives(jobs, options)
    logging.info("Predictions are in %s.", options.output)
    return failures


class _Reporter:
    """Counts the inputs that are done, and collects those that failed."""

    def __init__(self, total: int):
        self.failures: list[Failure] = []
        self._count = 0
        self._progress = Progress(
            total, description="predict", seconds_per_line=SECONDS_PER_LINE
        )

    def report(self, job: Job, failure: Failure | None) -> None:
        """Take note of one input."""
        self._count += 1
        self._progress.advance()
        if failure is not None:
            self.failures.append(failure)
            logging.info(f"left out: {failure.reason}")
        self._progress.report(self._count, {"left out": str(len(self.failures))})

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.close()


def _write_archives(jobs: Sequence[Job], options: Options) -> None:
    for name in options.formats:
        suffix = BENCHMARK_FORMATS[name].archive if name in BENCHMARK_FORMATS else None
        if suffix is None:
            continue
        archive = options.output / f"{name}{suffix}"
        paths = [path for job in jobs for path in job.all_paths(name)]
        write_archive(archive, options.output / name, paths)
        logging.info("Written for the server: %s", archive)
