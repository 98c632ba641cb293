"""Configurations in files: Python with ``get_config()``, and a run's JSON.

`load` reads such a file, or a shipped one by its name, applies overrides
(``--config.<field>=<value>``), checks everything, and names all faults at once.
"""

import difflib
import json
import pathlib
import types
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.fields import FIELDS, REMOVED, RENAMED, base_config
from segnext_jax.config.kinds import tuples
from segnext_jax.config.overrides import apply
from segnext_jax.config.rules import faults_of_command, validate

# The repository's configs/; in an installed package copies of its files.
SHIPPED = pathlib.Path(__file__).parent / "shipped"


def start_from(file: str, neighbour: str) -> ConfigDict:
    """Return the configuration of another file in the same folder, to be changed.

    Args:
      file: ``__file__`` of the configuration that is being written.
      neighbour: Name of the other one, as ``cityscapes_base.py``.

    Raises:
      ValueError: If the other file is missing or fails.
    """
    return read_file(pathlib.Path(file).parent / neighbour)


def load(path: str | None, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the validated configuration of a file, with overrides applied.

    Args:
      path: A Python file with ``get_config() -> ConfigDict``, or the name of a shipped
        one, as ``"ade20k_tiny"``; None: `base_config`.
      overrides: ``"model.variant=small"``, ``"data.crop_size=176,240"``, ...

    Raises:
      ValueError: If the file is missing or fails, or any field is unknown or
        impossible; the message lists all faults.
    """
    config = base_config() if path is None else read_file(pathlib.Path(path))
    return with_overrides(config, overrides, path or "the configuration")


def with_overrides(
    config: ConfigDict, overrides: Sequence[str], name: str
) -> ConfigDict:
    """Return a configuration with fields set, validated.

    Args:
      config: The configuration; it is changed.
      overrides: ``"data.crop_size=176,240"``, ...
      name: What it is the configuration of, for the error.

    Raises:
      ValueError: If any field is unknown or impossible; the message lists all faults.
    """
    faults = [fault for text in overrides if (fault := apply(config, text))]
    _refuse(faults + validate(config), name)
    return config


def refuse_unused(fields: Sequence[str], command: str, name: str) -> None:
    """Refuse fields that a command does not use.

    Args:
      fields: Names of the fields that are set.
      command: "prediction" or "evaluation"; see `rules.faults_of_command`.
      name: What it is the configuration of, for the error.

    Raises:
      ValueError: If ``fields`` names such fields; the message lists all.
    """
    _refuse(faults_of_command(fields, command), name)


def _refuse(faults: Sequence[str], name: str) -> None:
    if faults:
        raise ValueError(f"{name} cannot run as given:\n  - " + "\n  - ".join(faults))


def read_file(path: pathlib.Path) -> ConfigDict:
    """Return the configuration of a file as it is, without checks.

    Args:
      path: A file, or the name of a shipped one.

    Raises:
      ValueError: If the file is missing or fails.
    """
    path = find_file(path)
    if path.suffix != ".py":
        raise ValueError(f"--config must name a Python file (.py): got {path}.")
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        # An import would write bytecode beside the file, and take it for that of a file
        # that was changed within a second.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
        config = module.get_config()
    # Whatever else the user's file raises, or a sys.exit in it, is the user's to mend.
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        message = str(error).strip("\"'")
        for field, removed in REMOVED.items():
            if f'"{field.rsplit(".")[-1]}" does not exist' in message:
                message = f"config.{field} is not a field any more. {removed.remedy}"
        raise ValueError(
            f"{path} must define get_config() that returns a configuration: it failed "
            f"with {type(error).__name__}: {message}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config() in {path} must return a ConfigDict, as base_config() does: "
            f"got {type(config).__name__}."
        )
    return config


def find_file(path: pathlib.Path) -> pathlib.Path:
    """Return the file of a path, or of the name of a shipped configuration.

    Raises:
      ValueError: If there is no such file and no such shipped configuration.
    """
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.py"))}
    if str(path) in shipped:
        return shipped[str(path)]
    neighbours = sorted(map(str, path.parent.glob("*.py")))
    close = difflib.get_close_matches(str(path), neighbours, n=3)
    close = close or difflib.get_close_matches(path.stem, shipped, n=3, cutoff=0.75)
    hint = f"Shipped are {', '.join(shipped)}."
    if close:
        hint = f"Did you mean {' or '.join(close)}?"
    raise ValueError(
        "--config must name a shipped configuration or a Python file: "
        f"{path} does not exist. {hint}"
    )


def to_json(config: ConfigDict) -> str:
    """Return the configuration as JSON text; `from_json` reads it."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Return the configuration that `to_json` wrote, checked as that of a file is.

    Fields that were removed are passed over; fields that were added since keep their
    defaults.

    Args:
      text: What a run or a model folder stores.

    Raises:
      ValueError: If the text is no JSON of a configuration, or a field is unknown or
        impossible.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is too deep"
        raise ValueError(
            f"the stored configuration must be JSON text, which this is not: {reason}. "
            "It is damaged: take a copy of it."
        ) from error
    if not isinstance(values, dict) or not {"data", "model"} <= values.keys():
        raise ValueError(
            "the stored configuration must have the sections data and model: got "
            f"{str(text)[:100]!r}."
        )
    config = base_config()
    # Once for all fields: each time ConfigDict visits all of them.
    with config.unlocked(), config.ignore_type():
        faults = _fill(config, values, "")
    faults = faults or validate(config)
    if faults:
        raise ValueError("the stored configuration does not fit: " + " ".join(faults))
    return config


def _fill(section: ConfigDict, values: dict[str, Any], prefix: str) -> list[str]:
    """Set the fields of a section; return what cannot be, one sentence each."""
    faults = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, str):
            value = RENAMED.get((name, value), value)
        is_section = any(field.startswith(f"{name}.") for field in FIELDS)
        if name in REMOVED:
            if REMOVED[name].only not in (None, value):
                faults.append(
                    f"config.{name} is {value!r} there. {REMOVED[name].remedy}"
                )
            continue
        if is_section and isinstance(value, dict):
            faults.extend(_fill(section[key], value, f"{name}."))
        elif is_section:
            faults.append(f"config.{name} is a section: got {value!r}.")
        elif name not in FIELDS:
            faults.append(f"config.{name} is not a field of this version.")
        # A ConfigDict would take True for 1.0.
        elif fault := FIELDS[name].fault_of(tuples(value)):
            faults.append(fault)
        else:
            section[key] = tuples(value)
    return faults
