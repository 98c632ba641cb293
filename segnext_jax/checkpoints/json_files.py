"""Small JSON files of a run, read with suspicion: a loss of power leaves empty ones."""

import json
import pathlib

from segnext_jax.cli.whole_files import to_json, whole_file


def is_damaged(path: pathlib.Path) -> bool:
    """Return whether a file that holds a JSON object is empty, cut or overwritten."""
    try:
        return not isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return True


def keep_steps(path: pathlib.Path, last: int, *, is_writing: bool) -> list[dict]:
    """Return the lines of a file of JSON lines up to a step, and remove the others.

    The others belong to steps that an interrupted run will do again, or are cut.

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
        with whole_file(path, is_durable=True) as partial:
            partial.write_text("".join(to_json(values) + "\n" for values in kept))
    return kept
