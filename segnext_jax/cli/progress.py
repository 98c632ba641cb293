"""Progress of a long loop: a bar on a terminal, plain log lines elsewhere."""

import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import tqdm
from absl import logging

# Between two lines of a loop that reports at every step.
SECONDS_PER_LINE = 10.0

T = TypeVar("T")


class AboveBars(io.TextIOBase):
    """Standard error as a stream for logging: bars stay below what is written."""

    def write(self, text: str) -> int:
        """Write whole lines; a bar on the terminal is drawn again after them."""
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()


class Progress:
    """Counts steps up to a total and shows named values, pace and time left."""

    def __init__(
        self,
        total: int | None,
        first: int = 0,
        description: str = "train",
        seconds_per_line: float = 0.0,
    ):
        """Begin at step ``first`` of ``total``.

        Args:
          total: Number of steps; None if nobody knows it.
          first: Steps that are done.
          description: What is counted.
          seconds_per_line: Reports that come sooner after the last are passed over,
            except for that of the last step.
        """
        self._total = total
        self._seconds_per_line = seconds_per_line
        self._last = time.monotonic()
        self._first = first
        self._description = description
        self._start: float | None = None
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total, initial=first, desc=description, dynamic_ncols=True
            )

    def advance(self, steps: int = 1) -> None:
        """Count steps; the clock starts at the first, which holds compilation."""
        if self._start is None:
            self._start = time.monotonic()
        if self._bar is not None:
            self._bar.update(steps)

    def report(self, step: int, values: Mapping[str, str]) -> None:
        """Show the values at a step, with the time left by the pace so far."""
        now = time.monotonic()
        if now - self._last < self._seconds_per_line and step != self._total:
            return
        self._last = now
        if self._bar is not None:
            self._bar.set_postfix(values)
            return
        parts = [f"{name} {value}" for name, value in values.items()]
        num_timed = step - self._first - 1
        # The first step holds compilation: it tells nothing of the pace.
        if num_timed > 0 and self._start is not None and self._total is not None:
            left = (now - self._start) / num_timed * (self._total - step)
            parts.append(f"ETA {_clock(left)}")
        line = "  ".join(parts)
        of_total = "" if self._total is None else f"/{self._total}"
        logging.info("%s %d%s  %s", self._description, step, of_total, line)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def followed(
    items: Iterable[T], total: int, description: str, num_images: int = 1
) -> Iterator[T]:
    """Yield items; show now and then how many have come, and how fast.

    Args:
      items: The items.
      total: How many there will be.
      description: What is counted.
      num_images: Images of an item.
    """
    progress = Progress(total, 0, description, SECONDS_PER_LINE)
    start = time.monotonic()
    try:
        for count, item in enumerate(items, start=1):
            yield item  # The next one is asked for when this one is done.
            progress.advance()
            pace = count * num_images / max(time.monotonic() - start, 1e-9)
            progress.report(count, {"images/s": f"{pace:.2f}"})
    finally:
        progress.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
