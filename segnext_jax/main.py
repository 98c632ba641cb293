"""Train and evaluate: `segnext-jax train --config=ade20k_base`, `segnext-jax evaluate`.

A training evaluates and checkpoints on the way, and goes on where the workdir's newest
checkpoint stands. An evaluation takes the configuration that the run stores. A run that
is there needs its folder alone. Any field of the configuration can be set:
``--config.data.crop_size=176x240``. `python -m segnext_jax.main` trains, or evaluates
with ``--mode=evaluate``.
"""

import argparse
import contextlib
import functools
import pathlib
import sys
import typing
from collections.abc import Iterator, Sequence

from segnext_jax.cli import command, processes, storage

if typing.TYPE_CHECKING:
    from ml_collections import ConfigDict

# Nothing heavy is imported here: the worker processes of the input pipeline import this
# module again, and never touch a device.

_CONFIG = "name of a shipped config (segnext-jax configs lists them), or a file"


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Train, or evaluate with ``--mode=evaluate``.

    Args:
      arguments: The words of the command line.
      is_program: Whether the process is there for this job alone, so that its
        allocator may be set up for it.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    jobs = {"train": train, "evaluate": evaluate}
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.main", add_help=False, allow_abbrev=False
    )
    parser.add_argument("--mode", choices=tuple(jobs), default="train")
    options, rest = parser.parse_known_args(arguments)
    jobs[options.mode](rest, is_program=is_program)


def train(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Train, or go on with a run; see `--help`.

    Args:
      arguments: The words of the command line.
      is_program: See `main`.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    parser = command.Parser(
        "train",
        "Train SegNeXt, or pre-train its encoder. A run that is there goes on from its "
        "newest checkpoint.",
        f"{command.ANY_FIELD} With FOLDER all that is not set is chosen.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        help="folder of images/ and masks/: a configuration for it and this machine is "
        "chosen and written to runs/NAME.py",
    )
    parser.add_argument(
        "--config", help=f"{_CONFIG}; not needed where the run is there already"
    )
    parser.add_argument(
        "--workdir",
        help="folder of the run, which may be gs://BUCKET/... or s3://BUCKET/... "
        "(default: runs/<name of the config or of FOLDER>)",
    )
    processes.add_options(parser)
    options, rest = parser.parse_known_args(arguments)
    if any(text.startswith("--which") for text in rest):
        raise ValueError(
            "--which is for evaluate: a training goes on from the newest checkpoint. "
            "Leave it out; --config.init_which chooses one of another run."
        )
    if any(text.startswith("--output") for text in rest):
        raise ValueError(
            "--output is for the results of an evaluation: a training writes into "
            "--workdir. Leave it out."
        )
    overrides = command.overrides(parser, rest)
    command.set_up_compilation_cache()
    if options.folder:
        return _train_folder(parser, options, overrides, is_program)
    workdir = _folder(options.workdir, options.config, "--workdir")
    command.set_up_logging()
    config = _training_config(options.config, overrides, workdir)
    with _joined(options, is_program):
        from segnext_jax.training import loop

        loop.train(config, workdir)


def _train_folder(
    parser: command.Parser,
    options: argparse.Namespace,
    overrides: list[str],
    is_program: bool,
) -> None:
    if options.config or options.distributed or options.coordinator:
        parser.error(
            f"a folder is trained on in one process and by a configuration of its own: "
            f"got {options.folder} and --config or several processes. Leave one out"
        )
    command.set_up_logging()
    with _joined(options, is_program):
        from segnext_jax.training import recipe

        workdir = storage.as_path(options.workdir) if options.workdir else None
        recipe.train(pathlib.Path(options.folder), workdir, overrides)


def evaluate(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Evaluate the weights of a run or a model folder; see `--help`.

    Args:
      arguments: The words of the command line.
      is_program: See `main`.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    parser = command.Parser(
        "evaluate",
        "Evaluate the weights of a run on its validation split, by the settings that "
        "it stores.",
        f"{command.ANY_FIELD} Those of config.evaluation go on top of the run's.",
        renamed={"--workdir": "--checkpoint"},
    )
    parser.add_argument(
        "--checkpoint",
        help="a run's workdir, one of its checkpoints, or a model folder",
    )
    command.add_which(parser)
    parser.add_argument(
        "--config", help=f"{_CONFIG}, to be told where it differs from the run"
    )
    parser.add_argument(
        "--output",
        type=storage.as_path,
        help="folder for the results (default: the run's; nothing else is written "
        "there)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=0,
        metavar="N",
        help="draw the N images with the largest share of wrong pixels beside truth "
        "and errors, into worst/ of that folder",
    )
    processes.add_options(parser)
    options, rest = parser.parse_known_args(arguments)
    overrides = command.overrides(parser, rest)
    command.set_up_compilation_cache()
    folder = _folder(options.checkpoint, options.config, "--checkpoint")
    command.set_up_logging()
    from segnext_jax.training import evaluate as job

    config, stored = job.configure(folder, overrides, options.config)
    with _joined(options, is_program):
        job.evaluate(
            *(config, folder, options.which, stored, options.output),
            num_worst=options.worst,
        )


def _folder(folder: str | None, config: str | None, option: str) -> pathlib.Path:
    if folder:
        return storage.as_path(folder)
    if config is None:
        raise ValueError(
            f"--config or {option} must be given: the name of a config for a new run "
            f"({command.PROGRAM} configs lists them), or the folder of a run."
        )
    return pathlib.Path("runs") / pathlib.Path(config).stem


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
            f"--config must name a config for a new run: {workdir} holds none yet."
        )
    return config_lib.with_overrides(stored_config(workdir), overrides, str(workdir))


@contextlib.contextmanager
def _joined(options: argparse.Namespace, is_program: bool) -> Iterator[None]:
    """Join the other processes; then set up the allocator for the device."""
    with processes.joined(processes.ProcessOptions.of(options)):
        import jax

        if is_program and jax.default_backend() == "cpu":
            command.keep_freed_memory()
        yield


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
