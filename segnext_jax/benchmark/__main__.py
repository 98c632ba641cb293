"""Measure a part of the system: `python -m segnext_jax.benchmark --what=forward`."""

import argparse
import functools
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from segnext_jax.cli import command

# What can be measured: the module of each, its options and its run. Imported when they
# are asked for: not every machine has what each of them needs.
PARTS = {
    "input": ("input_pipeline", "add_options", "run"),
    "forward": ("network", "add_timing_options", "run"),
    "train": ("network", "add_timing_options", "run"),
    "evaluate": ("network", "add_evaluate_options", "run"),
    "compile": ("compilation", "add_compile_options", "run"),
    "ops": ("operations", "add_options", "run"),
}


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Run one benchmark; print its table.

    Args:
      arguments: Of the command line.
      is_program: See `segnext_jax.main.main`.
    """
    # All but a quarter of a GPU would be JAX's, and PyTorch runs beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    options, run = parse(arguments)
    if options.alone:
        alone = importlib.import_module("segnext_jax.benchmark.alone")
        alone.answer(options)
        return
    import jax

    if is_program and options.keep_memory and jax.default_backend() == "cpu":
        # As a training does; what PyTorch allocates beside it has the same allocator.
        command.keep_freed_memory()
    report = run(options)
    report.command = shlex.join(["python", "-m", "segnext_jax.benchmark", *arguments])
    report.write(options.output)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Callable]:
    """Return the options, and the function that measures what they ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.benchmark",
        description="Measure a part of the system on this machine.",
        add_help=False,
    )
    parser.add_argument("--what", choices=PARTS, required=True)
    parser.add_argument("--output", default="", help="also write JSON to this file")
    parser.add_argument(
        "--keep_memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on a CPU keep freed memory, as a training does: for all programs",
    )
    # One program, in this process alone: see `alone`.
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    what = parser.parse_known_args(arguments)[0].what
    # Each part has options of its own.
    parser.add_argument("--help", "-h", action="help", help="show this text and exit")
    module_name, add_options, run = PARTS[what]
    module = importlib.import_module(f"segnext_jax.benchmark.{module_name}")
    getattr(module, add_options)(parser)
    options = parser.parse_args(arguments)
    options.arguments = list(arguments)
    return options, getattr(module, run)


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
