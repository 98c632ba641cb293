"""SIGTERM, the notice that the machine is taken away: one more step, a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was told to end where nothing is lost by ending at once."""


class Preemption:
    """Listens for SIGTERM while its block runs.

    If there are several processes, JAX listens, and the processes agree on the step
    after which all end.
    """

    def __init__(self) -> None:
        """Do nothing before it is entered."""
        self._is_requested = False
        self._may_interrupt = False
        self._previous: Any = None

    def __enter__(self) -> "Preemption":
        """Listen, in the main thread of a single process."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        """Restore what SIGTERM did before."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._is_requested = True
        if self._may_interrupt:
            raise Preempted

    @property
    def is_noticed(self) -> bool:
        """Whether this process has been told; others may not know yet."""
        return self._is_requested

    def is_requested(self, step: int) -> bool:
        """Return whether to end after a step; the same in all processes.

        Args:
          step: The step that has just been done, the same in all of them.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._is_requested

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let the notice end the block at once, by `Preempted`.

        Use this where the block's work can be done again.

        Raises:
          Preempted: If the notice comes during the block, or came before it.
        """
        if self._is_requested:
            raise Preempted
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False
