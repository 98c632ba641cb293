"""Small JSON files of a run: written whole and valid, and read with suspicion."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from segnext_jax.checkpoints.integrity import sync


def to_json(values: Any, indent: int | None = None) -> str:
    """Return JSON text, with null for what JSON has no number for: nan, infinity."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    is_number = not isinstance(values, float) or math.isfinite(values)
    return values if is_number else None


def write_json(path: pathlib.Path, values: Any) -> None:
    """Write a JSON file; see `write_text`."""
    write_text(path, to_json(values))


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file as a whole or not at all, also if the machine loses power."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def is_damaged(path: pathlib.Path) -> bool:
    """Return whether a file that holds a JSON object is empty, cut or overwritten."""
    try:
        return not isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return True


def keep_steps(path: pathlib.Path, last: int, *, is_writing: bool) -> list[dict]:
    """Return the lines of a file of JSON lines up to a step, and remove the others.

    Those are of steps that an interrupted run will do again, and a line that was cut.

    Args:
      path: Need not exist.
      last: The last step that is kept.
      is_writing: False in all but one of several processes: nothing is removed.
    """
    kept, lines = [], path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        try:
            values = json.loads(line)
            is_kept = values["step"] <= last
        except (ValueError, KeyError, TypeError, RecursionError):
            is_kept = False
        if is_kept:
            kept.append(values)
    if is_writing and len(kept) < len(lines):
        write_text(path, "".join(to_json(values) + "\n" for values in kept))
    return kept
