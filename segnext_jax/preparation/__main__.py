"""Prepare a data set: `segnext-jax prepare shapes`.

Runs the ``prepare.py`` of the set, of the repository's ``data/``; an installed package
holds copies.
"""

import ast
import pathlib
import runpy
import sys
from collections.abc import Sequence

from segnext_jax.cli import command

# The repository's data/; in an installed package copies of its files.
SETS = pathlib.Path(__file__).parent / "sets"


def main(arguments: Sequence[str]) -> None:
    """Prepare one data set; see `--help`.

    Raises:
      ValueError: If there is no such data set.
      SystemExit: If the preparation ends with an exit code.
    """
    programs = {path.parent.name: path for path in sorted(SETS.glob("*/prepare.py"))}
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        sys.stdout.write(_overview(programs))
        return
    if name not in programs:
        raise ValueError(
            f"the data set must be one of {', '.join(programs)}: got {name!r}. "
            f"{command.PROGRAM} prepare lists them."
        )
    sys.argv = [str(programs[name]), *rest]
    runpy.run_path(str(programs[name]), run_name="__main__")


def _overview(programs: dict[str, pathlib.Path]) -> str:
    width = max(map(len, programs))
    # "Prepare ADE20K, 150 classes: `python data/ade20k/prepare.py`."
    titles = {
        name: (ast.get_docstring(ast.parse(path.read_text())) or "").partition(":")[0]
        for name, path in programs.items()
    }
    lines = (f"  {name:<{width}}  {title}\n" for name, title in titles.items())
    return (
        f"usage: {command.PROGRAM} prepare SET ...\n\n"
        "Download or find a data set, check every file and write ArrayRecord. Sets:\n\n"
        f"{''.join(lines)}\n"
        f"{command.PROGRAM} prepare SET --help tells the options of each. "
        f"{SETS.resolve()}/SET/README.md: licence, tree, counts.\n"
    )


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
