"""What is measured on the way: metrics of steps, time, memory, waiting for data."""

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from segnext_jax.training.optimizer import Optimizer

_GIBIBYTE = 2**30
# Metrics of a step. Where one of them is not finite, the step moves no parameter.
_MUST_BE_FINITE = ("loss", "gradient_norm", "update_norm")


@dataclasses.dataclass(frozen=True)
class Interval:
    """What the steps since the last report gave.

    Attributes:
      values: Means by name.
      broken_steps: Steps whose loss, gradient or update was not finite, with each.
    """

    values: dict[str, float]
    broken_steps: dict[int, dict[str, float]]


class Meter:
    """Collects the steps' metrics on the device and fetches them together."""

    def __init__(
        self,
        batch_size: int,
        optimizer: Optimizer,
        stall_seconds: float,
    ) -> None:
        """Start the clock.

        Args:
          batch_size: Images per step.
          optimizer: Its schedule, and the groups that are trained.
          stall_seconds: A warning is logged where a batch takes longer than this.
        """
        self._batch_size = batch_size
        self._schedule = optimizer.schedule
        self._lr_multipliers = {
            rule.name: rule.lr_multiplier
            for rule in optimizer.rules
            if not rule.is_frozen
        }
        self._stalls = _StallWatch(stall_seconds)
        self.restart()

    def restart(self) -> None:
        """Begin a new interval now."""
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Time from now on; what is pending stays, but is not timed."""
        self._num_untimed = len(self._pending)
        self._wait = 0.0
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the clock was started."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def waiting_for_data(self, step: int) -> Iterator[None]:
        """Add the time in the block to the wait for data.

        Args:
          step: The step that the data are for.
        """
        start = time.monotonic()
        with self._stalls.watching(step):
            yield
        self._wait += time.monotonic() - start

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Keep a step's metrics, on the device."""
        self._pending.append((step, metrics))

    def flush(self) -> Interval:
        """Return the interval and begin a new one; waits for its last step."""
        steps = [step for step, _ in self._pending]
        fetched = jax.device_get([metrics for _, metrics in self._pending])
        elapsed = self.elapsed()
        num_timed = len(steps) - self._num_untimed
        broken = {
            step: {name: float(metrics[name]) for name in _MUST_BE_FINITE}
            for step, metrics in zip(steps, fetched, strict=True)
            if not is_finite(metrics)
        }
        whole = [metrics for metrics in fetched if is_finite(metrics)]
        values = _means(whole)
        # The schedule counts finished steps.
        learning_rate = float(self._schedule(steps[-1] - 1))
        values["learning_rate"] = learning_rate
        for group, multiplier in self._lr_multipliers.items():
            values[f"learning_rate/{group}"] = learning_rate * multiplier
        values["images_per_second"] = self._batch_size * num_timed / elapsed
        values["step_seconds"] = elapsed / max(num_timed, 1)
        values["data_wait_seconds"] = self._wait / max(num_timed, 1)
        values["data_wait_share"] = self._wait / elapsed
        values |= memory()
        self.restart()
        return Interval(values, broken)

    def close(self) -> None:
        """Stop watching."""
        self._stalls.close()


def is_finite(metrics: Mapping[str, Any]) -> bool:
    """Return whether loss, gradient and update of a step are numbers."""
    return bool(np.isfinite([metrics[name] for name in _MUST_BE_FINITE]).all())


def memory() -> dict[str, float]:
    """Return what this process and its first device hold, in GiB, where it is known."""
    values = {}
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        (line,) = (s for s in status.read_text().splitlines() if s.startswith("VmRSS"))
        values["host_memory_gib"] = int(line.split()[1]) * 1024 / _GIBIBYTE
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        values["device_peak_memory_gib"] = stats["peak_bytes_in_use"] / _GIBIBYTE
    return values


def _means(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not metrics:
        return {"loss": float("nan")}
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


class _StallWatch:
    """Logs a warning while a block takes too long, again each time as long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: tuple[int, float] | None = None
        self._num_warnings = 0
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, step: int) -> Iterator[None]:
        self._since = step, time.monotonic()
        try:
            yield
        finally:
            self._since = None
            if self._num_warnings:
                logging.warning("The input pipeline goes on with step %d.", step)
            self._num_warnings = 0

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(1.0, self._seconds / 4)):
            since = self._since
            if since is None:
                continue
            step, start = since
            waited = time.monotonic() - start
            if waited > self._seconds * (self._num_warnings + 1):
                self._num_warnings += 1
                logging.warning(
                    "The input pipeline has given nothing for %.0f s: step %d waits. "
                    "Is the disk reachable, are the workers alive "
                    "(config.data.num_workers)?",
                    waited,
                    step,
                )
