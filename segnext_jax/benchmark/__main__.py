"""Measure a network on this machine: `segnext-jax benchmark --what=train`.

    forward   normalised images to logits; bytes of images to label maps on the host
    train     the train step, images and labels on the device already
    input     the training's batches from the prepared data set, on the host

All is as the configuration says: network, batch, crop size. Weights are random, and so
are images and labels except for input. `python -m benchmarks.compare` of the repository
measures beside PyTorch.
"""

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence

from segnext_jax.cli import command


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Measure; print a table. See `--help`.

    Args:
      arguments: The command line's.
      is_program: See `segnext_jax.main.main`.

    Raises:
      ValueError: If the configuration cannot run, or describes a classifier.
    """
    options, overrides = _parse(arguments)
    if options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1: got {options.rounds}.")
    from segnext_jax import config as config_lib

    config = config_lib.load(options.config, overrides)
    if config.task != "segmentation" and options.what != "input":
        raise ValueError(
            "--config must be one of a segmentation network, which holds the encoder, "
            f"too: {options.config} is of {config.task}. Take one of the same variant."
        )
    import jax

    from segnext_jax.benchmark.programs import machine, measure, table_line

    if is_program and jax.default_backend() == "cpu":
        command.keep_freed_memory()  # As a training does.
    rows = measure(options.what, config, options.rounds)
    line = shlex.join([command.PROGRAM, "benchmark", *arguments])
    table = [list(rows[0]), ["---"] * len(rows[0]), *(list(r.values()) for r in rows)]
    sys.stdout.write("".join(map(table_line, table)) + f"\n{machine()}: `{line}`\n")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "benchmark",
        "Measure a network, or the input of its training, on this machine.",
        f"{command.ANY_FIELD} Above all: --config.batch_size=8 "
        "--config.data.crop_size=512x512 --config.model.variant=base "
        "--config.model.dtype=bfloat16.",
    )
    parser.add_argument(
        "--what",
        choices=("forward", "train", "input"),
        required=True,
        help="forward: inference; train: the train step; input: the training's batches "
        "from the prepared data set",
    )
    parser.add_argument(
        "--config",
        help="name of a shipped config, or a file (default: all fields' defaults)",
    )
    parser.add_argument(
        "--rounds", type=int, default=11, help="runs that count (default: 11)"
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
