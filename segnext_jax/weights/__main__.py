"""List the published networks that have a name: `python -m segnext_jax.weights`.

With names, they are fetched and kept, for a machine that has no network later.
"""

import argparse
import sys
from collections.abc import Sequence

from segnext_jax.cli import command
from segnext_jax.weights import named
from segnext_jax.weights.published import table


def main(arguments: Sequence[str]) -> None:
    """List the published networks, or fetch some; see `--help`.

    Raises:
      ValueError: If a network cannot be fetched.
    """
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.weights",
        description="List the published networks; fetch and convert those named.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="network to fetch")
    names = parser.parse_args(arguments).names
    if not names:
        sys.stdout.write(f"{table()}\nkept in: {named.cache()}\n")
        return
    command.set_up_logging()
    for name in names:
        sys.stdout.write(f"{named.fetch(name)}\n")


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
