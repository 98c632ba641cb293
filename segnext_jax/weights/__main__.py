"""List the published networks that have a name: `segnext-jax weights`.

With names, they are fetched and kept, for a machine that has no network later.
"""

import sys
from collections.abc import Sequence

from segnext_jax.cli import command
from segnext_jax.weights.published import table


def main(arguments: Sequence[str]) -> None:
    """List the published networks, or fetch some; see `--help`.

    Raises:
      ValueError: If a network cannot be fetched.
    """
    parser = command.Parser(
        "weights",
        "List the published networks; fetch and convert those named, and print the "
        "folder of each.",
        "A fetched network needs no connection later. SEGNEXT_JAX_MIRROR names an "
        "address to fetch from instead of the authors'.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="network to fetch")
    names = parser.parse_args(arguments).names
    from segnext_jax.weights import named

    if not names:
        sys.stdout.write(f"{table()}\nkept in: {named.cache()}\n")
        return
    command.set_up_logging()
    for name in names:
        sys.stdout.write(f"{named.fetch(name)}\n")


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
