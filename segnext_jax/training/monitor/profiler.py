"""A trace of some steps, for TensorBoard or Perfetto."""

import pathlib
from typing import Any

import jax
from absl import logging


class Profiler:
    """Traces the steps from the first to the last of a pair of numbers."""

    def __init__(self, workdir: pathlib.Path, steps: tuple[int, int]) -> None:
        """Do nothing before the first of the steps comes.

        Args:
          workdir: The trace goes into ``profile/`` in it.
          steps: First and last step, counted from 1; (0, 0) for none.
        """
        self._folder = workdir / "profile"
        self._first, self._last = steps
        self._is_running = False

    def before(self, step: int) -> None:
        """Start where ``step`` is the first."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._is_running = True

    def after(self, step: int, results: Any) -> None:
        """Stop where ``step`` is the last, when its ``results`` are there."""
        if self._is_running and step >= self._last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Stop and write what was traced."""
        if self._is_running:
            jax.profiler.stop_trace()
            self._is_running = False
            logging.info("The trace is in %s.", self._folder)
