"""All commands: `segnext-jax COMMAND ...`, or `python -m segnext_jax COMMAND ...`.

What a command needs is imported when it runs: `--help` is quick.
"""

import difflib
import functools
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from segnext_jax import __version__
from segnext_jax.cli import command


class Command(NamedTuple):
    """Where a command is, and what it does.

    Attributes:
      module: Its module.
      summary: A line of the list of commands.
      function: Takes the command line; returns an exit code or nothing.
      owns_process: Whether it is told that the process is there for it alone.
    """

    module: str
    summary: str
    function: str = "main"
    owns_process: bool = False


COMMANDS = {
    "prepare": Command(
        "preparation.__main__", "make a data set ready: download, check, write"
    ),
    "check": Command(
        "check_dataset.__main__", "say what a data set holds and what is wrong with it"
    ),
    "configs": Command("config.__main__", "list the configurations, and their fields"),
    "train": Command("main", "train, or go on with a run", "train", True),
    "browse": Command(
        "training.browse", "draw training crops as the network sees them"
    ),
    "find-lr": Command(
        "training.find_lr",
        "suggest a learning rate by a short training",
        owns_process=True,
    ),
    "evaluate": Command(
        "main", "evaluate a run on its validation split", "evaluate", True
    ),
    "compare": Command("training.monitor.compare", "draw the curves of several runs"),
    "predict": Command("predict.__main__", "label images and videos"),
    "demo": Command("demo.__main__", "show in a web page what a network sees"),
    "convert": Command("convert.__main__", "weights from and to PyTorch"),
    "weights": Command("weights.__main__", "list or fetch the published networks"),
    "publish": Command("weights.publish", "write a network for others, with its card"),
    "export": Command("export.__main__", "write a network as StableHLO or ONNX"),
    "describe": Command("describe.__main__", "modules, parameters, multiplications"),
    "benchmark": Command(
        "benchmark.__main__",
        "measure a network or its input on this machine",
        owns_process=True,
    ),
}


def main() -> int:
    """Run the command of the process's arguments; return the exit code."""
    return command.run(dispatch, sys.argv[1:])


def dispatch(arguments: Sequence[str]) -> None:
    """Run one command.

    Args:
      arguments: Its name and its own arguments.

    Raises:
      ValueError: If there is no such command. What the command raises passes through.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "help"):
        sys.stdout.write(_overview())
        return
    if name == "--version":
        sys.stdout.write(f"{command.PROGRAM} {__version__}\n")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"the command must be one of {', '.join(COMMANDS)}: got {name!r}.{hint}"
        )
    found = COMMANDS[name]
    module = importlib.import_module(f"segnext_jax.{found.module}")
    function = getattr(module, found.function)
    if found.owns_process:
        function = functools.partial(function, is_program=True)
    function(rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {c.summary}\n" for name, c in COMMANDS.items())
    return (
        f"usage: {command.PROGRAM} COMMAND ...\n\n"
        "SegNeXt semantic segmentation in JAX. Commands:\n\n"
        f"{''.join(lines)}\n"
        f"{command.PROGRAM} COMMAND --help tells the options of each.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
