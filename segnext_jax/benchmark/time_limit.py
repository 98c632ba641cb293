"""Leaving a case that takes too long, if possible before it does."""

import statistics
import time
from collections.abc import Iterable, Mapping

from segnext_jax.benchmark.turns import Times


class CaseStopped(Exception):
    """A case is left; the message says why."""


class Limit:
    """The seconds that a case may take, from now on.

    A program that runs is not interrupted: the case ends where it would begin another.
    """

    def __init__(self, seconds: float):
        """Begin; 0 is no limit."""
        self.seconds = seconds
        self._start = time.monotonic()

    def left_s(self) -> float | None:
        """Return the seconds that are left, at least 0; None: no limit."""
        if not self.seconds:
            return None
        return max(self._start + self.seconds - time.monotonic(), 0.0)

    def check(self, what: str) -> None:
        """Go on only if there is time.

        Raises:
          CaseStopped: If there is none.
        """
        if self.left_s() == 0:
            raise CaseStopped(
                f"--time_limit={self.seconds:.0f} seconds passed before {what}."
            )


class Forecast:
    """Foretells how long programs run from how long they ran on less."""

    def __init__(self, num_turns: int):
        """Begin with nothing known.

        Args:
          num_turns: Turns of each program, warm-up included.
        """
        self._num_turns = num_turns
        self._s_per_flop: dict[tuple[str, str], float] = {}

    def add(self, work: str, times: Mapping[str, Times], flops: float) -> None:
        """Remember what programs took."""
        for name, value in times.items():
            if value.wall:
                seconds = statistics.median(value.wall)
                self._s_per_flop[work, name] = seconds / flops

    def check(
        self, work: str, names: Iterable[str], flops: float, limit: Limit
    ) -> None:
        """Go on only if all turns would fit.

        Raises:
          CaseStopped: If they would not.
        """
        left = limit.left_s()
        rates = (self._s_per_flop.get((work, name), 0.0) for name in names)
        expected = self._num_turns * flops * sum(rates)
        if left is not None and expected > left:
            raise CaseStopped(
                f"{work}: its turns would take {expected:.0f} s; {left:.0f} s of "
                f"--time_limit={limit.seconds:.0f} are left."
            )
