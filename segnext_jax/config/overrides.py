"""Fields of a configuration: set by text (``data.crop_size=176,240``), compared."""

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.fields import FIELDS, REMOVED


def apply(config: ConfigDict, override: str) -> str | None:
    """Set one ``field=value`` in place; return the fault, if there is one."""
    name, separator, text = override.partition("=")
    if name in REMOVED:
        return f"config.{name} is not a field any more. {REMOVED[name].remedy}"
    if name not in FIELDS:
        if any(field.startswith(name + ".") for field in FIELDS):
            return f"config.{name} is a section: set one of its fields."
        return f"config.{name} is not a field.{_suggestion(name)}"
    if not separator:
        return f"config.{name} needs a value: write --config.{name}=<value>."
    kind = FIELDS[name].kind
    value = kind.parse(text)
    if not kind.accepts(value):
        return f"config.{name} must be {kind.requirement}: got {text[:200]!r}."
    assign(config, name, value)
    return None


def assign(config: ConfigDict, name: str, value: Any) -> None:
    """Set ``"section.field"``, whatever the value's type: `validate` looks at it."""
    *parents, leaf = name.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[leaf] = value


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [field for field in FIELDS if field.rsplit(".", 1)[-1] == leaf]
    suggestions = [f"config.{field}" for field in (same_leaf or close)]
    if suggestions:
        return f" Did you mean {' or '.join(suggestions)}?"
    return " All fields stand in segnext_jax/config/fields/."


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.field", value) for every field."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences(
    stored: ConfigDict, given: ConfigDict, *, ignore: Collection[str] = ()
) -> list[str]:
    """Return one line for each field that differs.

    Args:
      stored: The configuration of a run.
      given: The configuration that is to go on with it.
      ignore: Names of fields that do not count.
    """
    stored_fields = dict(flatten(stored))
    return [
        f"config.{name} is {stored_fields.get(name)!r} there, {value!r} here"
        for name, value in flatten(given)
        if stored_fields.get(name) != value and name not in ignore
    ]
