"""Which checkpoints are the best: the metric by step, and a policy that keeps them."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from segnext_jax.cli.whole_files import write_json

SCORES_FILE = "scores.json"


class BestCheckpoints:
    """The main metric of each evaluated step, in a file: which are the best?"""

    def __init__(
        self, path: pathlib.Path, *, is_writing: bool, is_empty: bool = False
    ) -> None:
        """Read what the file holds.

        Args:
          path: JSON file; need not exist.
          is_writing: False in all but one of several processes.
          is_empty: Whether to leave it unread.

        Raises:
          ValueError: If the file does not hold scores by step.
        """
        self._path = path
        self._is_writing = is_writing
        self._by_step = {} if is_empty or not path.is_file() else _read(path)

    def record(self, step: int, score: float) -> None:
        """Note the score of a step; nan is never the best."""
        self._by_step[step] = score if np.isfinite(score) else None
        if self._is_writing:
            write_json(self._path, self._by_step)

    def of(self, step: int) -> float | None:
        """Return the score of a step; None: it has none, or it was nan."""
        return self._by_step.get(step)

    def has(self, step: int) -> bool:
        """Return whether a step has a score."""
        return step in self._by_step

    def steps(self, steps: Sequence[int], count: int) -> list[int]:
        """Return up to ``count`` of the steps, the best first, later ones if equal."""
        scored = [step for step in steps if self._by_step.get(step) is not None]
        ranked = sorted(scored, key=lambda step: (self._by_step[step], step))
        return ranked[::-1][:count]


def _read(path: pathlib.Path) -> dict[int, float | None]:
    scores: dict[int, float | None] = {}
    try:
        stored = json.loads(path.read_bytes())
        scores = {int(step): score for step, score in stored.items()}
        is_whole = all(score is None or _is_score(score) for score in scores.values())
    except (AttributeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f'{path} must hold the scores of evaluations by step, as {{"8": 0.5}}: it '
            "is damaged. Delete it; which checkpoint is the best is then unknown until "
            "the next evaluation."
        )
    return scores


def _is_score(score: Any) -> bool:
    # An integer may be larger than a float can be.
    is_integer = type(score) is int and abs(score) < 2**53
    return is_integer or isinstance(score, float)


@dataclasses.dataclass(frozen=True)
class KeepBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keep the best checkpoints.

    Attributes:
      best: Tells which checkpoints are the best.
      count: Number of checkpoints that are kept.
    """

    best: BestCheckpoints
    count: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        """Return which of the checkpoints stay; orbax asks after each save."""
        del context
        best = self.best.steps([each.step for each in checkpoints], self.count)
        return [each.step in best for each in checkpoints]
