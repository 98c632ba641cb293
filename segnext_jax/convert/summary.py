"""What became of a checkpoint's arrays, told readably."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from segnext_jax.datasets.folder import few

NUM_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Reshaped:
    """An array whose shape is not the needed one.

    Attributes:
      name: Its name.
      given: Shape in the checkpoint.
      needed: Shape in the network.
    """

    name: str
    given: tuple[int, ...]
    needed: tuple[int, ...]

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.name} {list(self.given)} (needed {list(self.needed)})"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of a checkpoint's arrays.

    Attributes:
      loaded: Names of arrays that were taken.
      missing: Arrays of the network that the checkpoint does not hold; left fresh.
      unexpected: Arrays of the checkpoint that the network does not have; not used.
      reshaped: Arrays of other shape, as those of a head with another number of
        classes; left fresh.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[Reshaped, ...] = ()

    def __str__(self) -> str:
        """Say it in one to four lines."""
        parts = Counter(name.partition(".")[0] for name in self.loaded)
        counts = ", ".join(f"{part} {count}" for part, count in parts.items())
        lines = [f"loaded {len(self.loaded)} arrays ({counts})"]
        for label, items in (
            ("missing, left fresh", self.missing),
            ("of another shape, left fresh", self.reshaped),
            ("unexpected, not used", self.unexpected),
        ):
            if items:
                lines.append(f"{label}: {len(items)} ({listed(map(str, items))})")
        return "\n".join(lines)


def listed(items: Iterable[str]) -> str:
    """Return the first few items, and how many more there are."""
    return few([*items], NUM_LISTED)


def described(arrays: Mapping[str, Any]) -> str:
    """Return names and shapes of the first few arrays."""
    return listed(f"{name} {list(value.shape)}" for name, value in arrays.items())
