"""One malformed input, and what is known of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """An input to try.

    Attributes:
      what: How it was made, for the report.
      try_fn: Uses it as a program would; what a user is told is raised as the
        program raises it. Returning is acceptance.
      is_wrong: Whether acceptance would be wrong.
    """

    what: str
    try_fn: Callable[[], object]
    is_wrong: bool = False


# A door is a module of `doors` with a function `generate` of this type.
Generate = Callable[[np.random.Generator, Path], Case]
