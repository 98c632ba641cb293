"""Kinds of values that fields of a configuration hold, and how text becomes one."""

import ast
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

# Sizes, counts and steps are kept in 32 bits on devices.
MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a field may hold.

    Attributes:
      requirement: How an error goes on after "config.FIELD must be".
      type: The Python type of the values, None apart.
      accepts: Whether a value is one.
      in_python: Turns the notation of a command line into Python's.
    """

    requirement: str
    type: type
    accepts: Callable[[Any], bool]
    in_python: Callable[[str], str] = str.strip

    def parse(self, text: str) -> Any:
        """Return the value that a command line means; it may not be acceptable.

        Args:
          text: ``0.5,2``, ``1e-3``, ``true``, ``None``; of sizes ``176x240`` or
            ``176,240``; of text fields the text.
        """
        if self.type is str:
            return text
        if self.type is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        try:
            value = ast.literal_eval(self.in_python(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        if value is not None and self.type is tuple:
            value = value if isinstance(value, (tuple, list)) else (value,)
        return tuples(value)


def tuples(value: Any) -> Any:
    """Return lists as tuples, at all depths: JSON knows no tuples."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


def shown(value: Any) -> str:
    """Return a value as text that fits a sentence."""
    # Python refuses to write whole numbers of thousands of digits.
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of more than 20 digits"
    if isinstance(value, ConfigDict):
        return "a section"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def where(kind: Kind, is_valid: Callable[[Any], bool], requirement: str) -> Kind:
    """Return a kind of which only some values are valid."""
    return Kind(
        requirement, kind.type, lambda value: kind.accepts(value) and is_valid(value)
    )


def optional(kind: Kind) -> Kind:
    """Return a kind that may also be None."""
    return Kind(
        f"{kind.requirement}, or None",
        kind.type,
        lambda value: value is None or kind.accepts(value),
    )


def text() -> Kind:
    """Any text."""
    return Kind("text", str, lambda value: isinstance(value, str))


def flag() -> Kind:
    """True or false."""
    return Kind("true or false", bool, lambda value: isinstance(value, bool))


def one_of(*choices: str) -> Kind:
    """One of some words."""
    return where(text(), lambda value: value in choices, f"one of {', '.join(choices)}")


def whole(least: int = 0, most: int = MOST) -> Kind:
    """A whole number."""
    needed = f"a whole number of at least {least}"
    if most < MOST:
        needed = f"a whole number in [{least}, {most}]"
    return Kind(
        needed, int, lambda value: type(value) is int and least <= value <= most
    )


def number(
    least: int | float = -math.inf,
    most: int | float = math.inf,
    *,
    above: int | float = -math.inf,
    below: int | float = math.inf,
) -> Kind:
    """A finite number."""
    limits = (
        (f"of at least {least:g}", least > -math.inf),
        (f"greater than {above:g}", above > -math.inf),
        (f"at most {most:g}", most < math.inf),
        (f"less than {below:g}", below < math.inf),
    )
    needed = " and ".join(limit for limit, is_given in limits if is_given)
    if least > -math.inf and most < math.inf:
        needed = f"between {least:g} and {most:g}"

    def accepts(value: Any) -> bool:
        # A whole number of a thousand digits is none that a float can hold.
        if type(value) is not float and (type(value) is not int or abs(value) > 2**63):
            return False
        return math.isfinite(value) and least <= value <= most and above < value < below

    return Kind(f"a number {needed}" if needed else "a number", float, accepts)


def several(kind: Kind, requirement: str, length: int | None = None) -> Kind:
    """A tuple of values of one kind.

    Args:
      kind: The kind of each value.
      requirement: What an error says of the whole tuple.
      length: The number of values. None: any.
    """

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and length in (None, len(value))
            and all(map(kind.accepts, value))
        )

    return Kind(requirement, tuple, accepts)


def pair(kind: Kind, requirement: str) -> Kind:
    """Two values of one kind."""
    return several(kind, requirement, length=2)


def rising(kind: Kind) -> Kind:
    """A pair whose first value is not above its second."""
    return where(kind, lambda value: value[0] <= value[1], kind.requirement)


SHARE = number(0, 1)
RATE = number(0, below=1)
POSITIVE = number(above=0)
NOT_NEGATIVE = number(0)
SIDES = pair(whole(1), "two whole numbers of pixels, each at least 1")
SIZE = dataclasses.replace(
    SIDES,
    requirement="HEIGHTxWIDTH in pixels, each at least 1",
    in_python=lambda text: re.sub(r"^(\d+)x(\d+)$", r"\1,\2", text.strip()),
)
FACTORS = rising(
    pair(POSITIVE, "two numbers greater than 0, the smaller one first"),
)
BYTE = whole(0, 255)
ID_MAP = dataclasses.replace(
    several(
        pair(BYTE, ""), "pairs of an id and its train id, in [0, 255] each, as 7:0,8:1"
    ),
    # The last comma makes one pair a tuple of pairs.
    in_python=lambda text: re.sub(r"(\d+):(\d+),?", r"(\1,\2),", text.strip()),
)
COLOURS = several(
    several(BYTE, "a colour", length=3),
    "triples (red, green, blue) of whole numbers in [0, 255]",
)
