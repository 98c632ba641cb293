"""Progress of a long loop: a bar on a terminal, plain log lines elsewhere."""

import sys
import time
from collections.abc import Mapping

import tqdm
from absl import logging


class Progress:
    """Counts steps up to a total and shows named values, pace and time left."""

    def __init__(self, total: int, first: int = 0, description: str = "train"):
        """Begin at step ``first`` of ``total``."""
        self._total = total
        self._first = first
        self._description = description
        self._start: float | None = None
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total, initial=first, desc=description, dynamic_ncols=True
            )

    def advance(self) -> None:
        """Count one step; the clock starts at the first, which holds compilation."""
        if self._start is None:
            self._start = time.monotonic()
        if self._bar is not None:
            self._bar.update()

    def report(self, step: int, values: Mapping[str, str]) -> None:
        """Show the values at a step, with the time left by the pace so far."""
        if self._bar is not None:
            self._bar.set_postfix(values)
            return
        start = time.monotonic() if self._start is None else self._start
        pace = (time.monotonic() - start) / max(step - self._first - 1, 1)
        left = pace * (self._total - step)
        text = "  ".join(f"{name} {value}" for name, value in values.items())
        logging.info(
            "%s %d/%d  %s  ETA %s",
            self._description,
            step,
            self._total,
            text,
            _clock(left),
        )

    def note(self, text: str) -> None:
        """Show a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            logging.info("%s", text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
