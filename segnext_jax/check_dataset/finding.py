"""One thing that is wrong with a data set."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segnext_jax.check_dataset.inspection import Facts
from segnext_jax.check_dataset.summary import Summary

ERROR, WARNING = "error", "warning"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
      level: "error": a training stops there, or its result means nothing;
        "warning": it may be meant so.
      text: One or two sentences.
      names: All that it concerns, where that are files or images.
    """

    level: str
    text: str
    names: tuple[str, ...] = ()


# What looks at a summary and the section `data` of a configuration.
Rule = Callable[[Summary, Any], Iterator[Finding]]


def names_of(facts: Sequence[Facts]) -> list[str]:
    """Return the names of pairs."""
    return [fact.name for fact in facts]
