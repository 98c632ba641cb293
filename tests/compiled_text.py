"""What the text of a compiled program says."""

import re

_EXCHANGE = re.compile(
    r" (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)"
    r"(?:-start)?\("
)


def exchanges_in_loops(text: str) -> int:
    """Return how many exchanges between devices do not stand in the program itself.

    Those of a loop's body or condition stand in a computation of their own.

    Args:
      text: Of the compiled program; it names the program itself ``ENTRY``.
    """
    computations = re.split(r"^(?=%|ENTRY)", text, flags=re.MULTILINE)
    loops = (each for each in computations if not each.startswith("ENTRY"))
    return sum(len(_EXCHANGE.findall(each)) for each in loops)
