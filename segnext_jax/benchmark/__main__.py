"""Measure a part of the system: `python -m segnext_jax.benchmark --what=input`."""

import argparse
import sys
from collections.abc import Sequence

from segnext_jax import command
from segnext_jax.benchmark import input_pipeline, network, operations

# What can be measured: the options and the run of each.
PARTS = {
    "input": (input_pipeline.add_options, input_pipeline.run),
    "forward": (network.add_options, network.run_forward),
    "train": (network.add_options, network.run_train),
    "compile": (network.add_options, network.run_compile),
    "ops": (operations.add_options, operations.run),
}


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
    add_options, run = PARTS[what]
    add_options(parser)
    options = parser.parse_args(arguments)
    run(options).write(options.output)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
