"""Fields of a configuration: set by text (``data.crop_size=176,240``), compared."""

import ast
import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

# Fields of earlier versions, and what takes their place. Configurations that were
# stored with them are read without.
REMOVED = {
    "evaluation.checkpoint": "Name the checkpoint with --which=latest, best or a step."
}


def apply(config: ConfigDict, override: str) -> str | None:
    """Set one ``field=value`` in place; return the fault, if there is one."""
    name, separator, text = override.partition("=")
    fields = dict(flatten(config))
    if name in REMOVED:
        return f"config.{name} is not a field any more. {REMOVED[name]}"
    if name not in fields:
        if any(field.startswith(name + ".") for field in fields):
            return f"config.{name} is a section: set one of its fields."
        return f"config.{name} is not a field.{_suggestion(name, fields)}"
    if not separator:
        return f"config.{name} needs a value: write --config.{name}=<value>."
    section, leaf = _section_of(config, name)
    wanted = type_of(config, name)
    try:
        section[leaf] = _parse(text, wanted)
    except (TypeError, ValueError, SyntaxError):
        return f"config.{name} must be of type {wanted.__name__}: got {text!r}."
    return None


def type_of(config: ConfigDict, name: str) -> type:
    """Return the type of the values of ``"section.field"``."""
    section, leaf = _section_of(config, name)
    return section.get_type(leaf)


def find(config: ConfigDict, name: str) -> Any:
    """Return the value of ``"section.field"``."""
    section, leaf = _section_of(config, name)
    return section[leaf]


def _section_of(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
    """Return the section that a field is in, and its name there."""
    *parents, leaf = name.split(".")
    for part in parents:
        config = config[part]
    return config, leaf


def _parse(text: str, wanted: type) -> Any:
    if wanted is str:
        return text
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = ast.literal_eval(text)
    if wanted is tuple and not isinstance(value, tuple):
        value = tuple(value) if isinstance(value, list) else (value,)
    if isinstance(value, bool):
        raise TypeError(text)
    return value


def _suggestion(name: str, fields: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [field for field in fields if field.rsplit(".", 1)[-1] == leaf]
    suggestions = [f"config.{field}" for field in (same_leaf or close)]
    if suggestions:
        return f" Did you mean {' or '.join(suggestions)}?"
    return " All fields stand in segnext_jax/config/fields.py."


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.field", value) for every field."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences(
    stored: ConfigDict,
    given: ConfigDict,
    *,
    ignore: Sequence[str] = (),
) -> list[str]:
    """Return one line for each field that differs.

    Args:
      stored: The configuration of a run.
      given: The configuration that is to go on with it.
      ignore: Patterns of fields that do not count, as ``section.*``.
    """
    stored_fields, given_fields = dict(flatten(stored)), dict(flatten(given))
    return [
        f"config.{field} is {stored_fields.get(field)!r} there, {value!r} here"
        for field, value in given_fields.items()
        if stored_fields.get(field) != value
        and not any(fnmatch.fnmatchcase(field, pattern) for pattern in ignore)
    ]
