"""The main job: `python -m segnext_jax.main --config=configs/ade20k_base.py`.

Trains, evaluating and checkpointing on the way, and goes on where the workdir's newest
checkpoint stands; or evaluates that checkpoint with ``--mode=evaluate``. Any field of
the configuration can be set: ``--config.data.crop_size=176,240``.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax.cli import command, processes

# Nothing heavy is imported here: the worker processes of the input pipeline import this
# module again, and never touch a device.


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Run one job; see `--help`.

    Args:
      arguments: Of the command line.
      is_program: Whether the process is there for this job alone, so that its
        allocator may be set up for it.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    options, overrides = _parse(arguments)
    command.set_up_compilation_cache()
    from segnext_jax import config as config_lib

    config = config_lib.load(options.config, overrides)
    workdir = pathlib.Path(
        options.workdir or pathlib.Path("runs") / pathlib.Path(options.config).stem
    )

    several = processes.ProcessOptions(
        options.distributed,
        options.coordinator,
        options.num_processes,
        options.process_id,
    )
    with processes.joined(several):
        import jax

        if is_program and jax.default_backend() == "cpu":
            command.keep_freed_memory()
        from segnext_jax.training.loop import train
        from segnext_jax.training.tasks.task import evaluate_workdir

        command.set_up_logging()
        if options.mode == "train":
            train(config, workdir)
        else:
            evaluate_workdir(config, workdir)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.main",
        description="Train or evaluate SegNeXt, or pre-train its encoder.",
        epilog="Every field of the configuration is an option: --config.FIELD=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument(
        "--workdir", help="folder of the run (default: runs/<name of the config file>)"
    )
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train")
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="started by SLURM, Kubernetes, a TPU pod or Open MPI",
    )
    several.add_argument(
        "--coordinator", default="", help="HOST:PORT of process 0, where nothing did"
    )
    several.add_argument("--num_processes", type=int, help="number of processes")
    several.add_argument("--process_id", type=int, help="number of this process")
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
