"""The shipped configurations: `segnext-jax configs`, and what each holds.

`segnext-jax configs ade20k_tiny` prints what the file says and sets; with ``--print``
every field, its value, default and meaning, and where it was set.
"""

import argparse
import ast
import pathlib
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from segnext_jax import config as config_lib
from segnext_jax.cli import command
from segnext_jax.config import files
from segnext_jax.config.fields import FIELDS, base_config
from segnext_jax.config.overrides import flatten


def main(arguments: Sequence[str]) -> None:
    """List the configurations, or print one; see `--help`.

    Raises:
      ValueError: If there is no such configuration, or the configuration cannot run as
        given.
    """
    options, overrides = _parse(arguments)
    if options.name is None:
        sys.stdout.write(_listing())
        return
    path = files.find_file(pathlib.Path(options.name))
    config = config_lib.load(options.name, overrides)
    origins = _origins(path) | {
        text.partition("=")[0]: "the command line" for text in overrides
    }
    if not options.print:
        sys.stdout.write(f"{_docstring(path)}\n\nSet:\n")
    for name, value in flatten(config):
        if options.print or name in origins:
            sys.stdout.write(_entry(name, value, origins.get(name), options.print))


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "configs",
        "List the shipped configurations, with data set, variant and what the paper "
        "reports; or print one.",
        "--config.FIELD=VALUE sets a field of NAME, to see that it is valid.",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a shipped configuration, or a file"
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="print every field: value, default, meaning, and where it was set",
    )
    options, rest = parser.parse_known_args(arguments)
    if options.name is None and (rest or options.print):
        parser.error("name the configuration: segnext-jax configs NAME ...")
    return options, command.overrides(parser, rest)


def _listing() -> str:
    rows = [("config", "data set", "variant", "what")]
    for path in sorted(files.SHIPPED.glob("*.py")):
        config = files.read_file(path)
        # "SegNeXt-T on ADE20K: mIoU 41.1, multi-scale with flip 42.2 (paper)."
        title = _docstring(path).partition("\n")[0]
        what = title.partition(": ")[2]
        what = what if what.startswith(("mIoU", "top-1")) else title
        row = (path.stem, config.data.name, config.model.variant, what.rstrip("."))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        + "\n"
        for row in rows
    )


def _docstring(path: pathlib.Path) -> str:
    return ast.get_docstring(ast.parse(path.read_bytes())) or path.name


def _origins(path: pathlib.Path) -> dict[str, str]:
    """Return the name of the file that set each field that is not at its default."""
    origins, before = {}, dict(flatten(base_config()))
    for file in _with_neighbours(path):
        after = dict(flatten(files.read_file(file)))
        for name, value in after.items():
            if value != before.get(name):
                origins[name] = file.name
        before = after
    return origins


def _with_neighbours(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that a configuration starts from, the first first, and its own.

    A file says so by ``start_from(__file__, "neighbour.py")``.
    """
    for node in ast.walk(ast.parse(path.read_bytes())):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "start_from"
            and isinstance(neighbour := node.args[-1], ast.Constant)
        ):
            return [*_with_neighbours(path.parent / str(neighbour.value)), path]
    return [path]


def _entry(name: str, value: Any, origin: str | None, is_whole: bool) -> str:
    field = FIELDS[name]
    line = f"{name} = {value!r}"
    if origin is not None:
        line += f"  ({origin}; default {field.default!r})"
    if not is_whole:
        return f"  {line}\n"
    meaning = f"{field.meaning} {field.source and f'Source: {field.source}'}".strip()
    indent = " " * 4
    text = textwrap.fill(meaning, 88, initial_indent=indent, subsequent_indent=indent)
    return f"{line}\n{text}\n"


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
