"""The main job: `python -m segnext_jax.main --config=configs/ade20k_base.py`.

Trains, evaluating and checkpointing on the way, and goes on where the workdir's newest
checkpoint stands; or evaluates that checkpoint with ``--mode=evaluate``. Any field of
the configuration can be set: ``--config.data.crop_size=176,240``.
"""

import argparse
import pathlib
import sys
import traceback
from collections.abc import Sequence

_PACKAGE = pathlib.Path(__file__).parent

# Nothing heavy is imported here: the worker processes of the input pipeline import this
# module again, and never touch a device.


def main(arguments: Sequence[str]) -> None:
    """Run one job; see `--help`.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    options, overrides = _parse(arguments)
    from segnext_jax import config as config_lib

    config = config_lib.load(options.config, overrides)
    workdir = pathlib.Path(
        options.workdir or pathlib.Path("runs") / pathlib.Path(options.config).stem
    )

    from segnext_jax.training.loop import train
    from segnext_jax.training.validator import evaluate_workdir

    _set_up_logging()
    if options.mode == "train":
        train(config, workdir)
    else:
        evaluate_workdir(config, workdir)


def _set_up_logging() -> None:
    """Log our own notes and everybody's warnings to stderr, with the time of day."""
    import logging

    from absl import flags
    from absl import logging as absl_logging

    def is_ours_or_grave(record: logging.LogRecord) -> bool:
        return _PACKAGE in pathlib.Path(record.pathname).parents or (
            record.levelno >= logging.WARNING
            # Orbax warns whenever a save waits for the one before.
            and "Waiting for previous save" not in record.getMessage()
        )

    # absl holds back until somebody has parsed its flags; argparse has parsed ours.
    flags.FLAGS.mark_as_parsed()
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(is_ours_or_grave)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.main",
        description="Train or evaluate SegNeXt.",
        epilog="Every field of the configuration is an option: --config.FIELD=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument(
        "--workdir", help="folder of the run (default: runs/<name of the config file>)"
    )
    parser.add_argument("--mode", choices=("train", "evaluate"), default="train")
    options, rest = parser.parse_known_args(arguments)
    prefix = "--config."
    unknown = [text for text in rest if not text.startswith(prefix)]
    if unknown:
        parser.error(
            f"unknown arguments: {' '.join(unknown)}. Fields of the configuration are "
            "written --config.<field>=<value>."
        )
    return options, [text.removeprefix(prefix) for text in rest]


def run(arguments: Sequence[str]) -> int:
    """Run `main`; return the exit code.

    What a user can cause ends in one sentence on stderr. Any other error keeps its
    traceback: it is a bug.
    """
    try:
        main(arguments)
    except KeyboardInterrupt:
        print(
            "interrupted: the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        if not _is_raised_here(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _is_raised_here(error: BaseException) -> bool:
    """Tell our own refusals from errors inside a library, by the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _PACKAGE in pathlib.Path(frames[-1].filename).parents


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
