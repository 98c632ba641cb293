"""Measure a part of the system: `python -m segnext_jax.benchmark --what=input`."""

import argparse
import sys
from collections.abc import Sequence

from segnext_jax import command
from segnext_jax.benchmark import input_pipeline

# What can be measured: its options and its run.
PARTS = {"input": input_pipeline}


def main(arguments: Sequence[str]) -> None:
    """Run one benchmark; print its table."""
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.benchmark",
        description="Measure a part of the system on this machine.",
        add_help=False,
    )
    parser.add_argument("--what", choices=PARTS, required=True)
    parser.add_argument("--output", default="", help="also write JSON to this file")
    what = parser.parse_known_args(arguments)[0].what
    # Each part has options of its own.
    parser.add_argument("--help", "-h", action="help", help="show this text and exit")
    PARTS[what].add_options(parser)
    options = parser.parse_args(arguments)
    PARTS[what].run(options).write(options.output)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
