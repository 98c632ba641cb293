"""The main job: `python -m segnext_jax.main --config=configs/ade20k_base.py`.

Trains, evaluating and checkpointing on the way, and goes on where the workdir's newest
checkpoint stands; or evaluates a checkpoint with ``--mode=evaluate``, by the
configuration that the run stores. A run that is there needs ``--workdir`` alone. Any
field of the configuration can be set: ``--config.data.crop_size=176,240``.
"""

import argparse
import functools
import pathlib
import sys
import typing
from collections.abc import Sequence

from segnext_jax.cli import command, processes

if typing.TYPE_CHECKING:
    from ml_collections import ConfigDict

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
    workdir = _workdir(options)
    command.set_up_logging()
    if options.mode == "train":
        config = stored = _training_config(options.config, overrides, workdir)
    else:
        from segnext_jax import evaluate

        config, stored = evaluate.configure(workdir, overrides, options.config)

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
        if options.mode == "train":
            from segnext_jax.training.loop import train

            train(config, workdir)
        else:
            evaluate.evaluate(
                config, workdir, options.which or "latest", stored, options.output
            )


def _workdir(options: argparse.Namespace) -> pathlib.Path:
    if options.output is not None and options.mode == "train":
        raise ValueError(
            "--output is for the results of --mode=evaluate: a training writes into "
            "--workdir. Leave it out."
        )
    if options.which is not None and options.mode == "train":
        raise ValueError(
            "--which is for --mode=evaluate: a training goes on from the newest "
            "checkpoint. Leave it out; --config.init_which chooses one of another run."
        )
    if options.workdir:
        return pathlib.Path(options.workdir)
    if options.config is None:
        raise ValueError(
            "--config or --workdir must be given: a config file for a new run, or the "
            "folder of a run."
        )
    return pathlib.Path("runs") / pathlib.Path(options.config).stem


def _training_config(
    path: str | None, overrides: list[str], workdir: pathlib.Path
) -> "ConfigDict":
    """Return the configuration of a training: of a file, else of the run."""
    from segnext_jax import config as config_lib
    from segnext_jax.checkpoints.model_folder import CONFIG_FILE
    from segnext_jax.checkpoints.reading import stored_config

    if path is not None:
        return config_lib.load(path, overrides)
    if not (workdir / CONFIG_FILE).is_file():
        raise ValueError(
            f"--config must name a config file for a new run: {workdir} holds none yet."
        )
    return config_lib.with_overrides(stored_config(workdir), overrides, str(workdir))


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.main",
        description="Train or evaluate SegNeXt, or pre-train its encoder.",
        epilog="Every field of the configuration is an option: --config.FIELD=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", help="a file of configs/; not needed where the run is there already"
    )
    parser.add_argument(
        "--workdir", help="folder of the run (default: runs/<name of the config file>)"
    )
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train")
    command.add_which(parser, default=None)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for the results of --mode=evaluate (default: the run's; nothing "
        "else is written there)",
    )
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
