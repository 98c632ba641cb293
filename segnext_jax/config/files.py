"""Configurations in files: Python with ``get_config()``, and a run's JSON.

`load` reads such a file, applies ``--config.<field>=<value>`` overrides, checks
everything, and names all faults at once.
"""

import difflib
import importlib.util
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.fields import base_config
from segnext_jax.config.overrides import apply
from segnext_jax.config.rules import faults_of_task, validate

# Fields of earlier versions that stored configurations hold: the value that means what
# this version does, and why no other one is read.
_REMOVED = {
    "model.decomposition": (
        "nmf",
        "Vector quantisation and concept decomposition were removed: the repository's "
        "commit 986ebcb has them.",
    ),
}


def start_from(file: str, neighbour: str) -> ConfigDict:
    """Return the configuration of another file in the same folder, to be changed.

    Args:
      file: ``__file__`` of the configuration that is being written.
      neighbour: Name of the other one, as ``cityscapes_base.py``.

    Raises:
      ValueError: If it is missing or fails.
    """
    return _read(pathlib.Path(file).parent / neighbour)


def load(path: str | None, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the validated configuration of a file, with overrides applied.

    Args:
      path: A Python file with ``get_config() -> ConfigDict``; None: `base_config`.
      overrides: ``"model.variant=small"``, ``"data.crop_size=176,240"``, ...

    Raises:
      ValueError: If the file is missing or fails, or any field is unknown or
        impossible; the message lists all faults.
    """
    config = base_config() if path is None else _read(pathlib.Path(path))
    faults = []
    for override in overrides:
        fault = apply(config, override)
        if fault:
            faults.append(fault)
    faults.extend(validate(config))
    faults.extend(faults_of_task(config, base_config()))
    if faults:
        name = path or "the configuration"
        raise ValueError(f"{name} cannot run as given:\n  - " + "\n  - ".join(faults))
    return config


def _read(path: pathlib.Path) -> ConfigDict:
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("*.py"))
        close = difflib.get_close_matches(str(path), known, n=3, cutoff=0.5) or known
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"--config must name a Python file: {path} does not exist.{hint}"
        )
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"--config must name a Python file (.py): got {path}.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # Whatever the user's file raises is the user's to mend.
        message = str(error).strip("\"'")
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


def to_json(config: ConfigDict) -> str:
    """Return the configuration as JSON text; `from_json` reads it."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Return the configuration that `to_json` wrote.

    Fields that this version does not know are refused, unless they were removed and
    hold what is fixed now; fields that it has gained since keep their defaults.

    Raises:
      ValueError: If the text is not such a configuration.
    """
    config = base_config()
    faults = []

    def fill(section: ConfigDict, values: dict, prefix: str) -> None:
        for key, value in values.items():
            name = prefix + key
            if name in _REMOVED:
                only, reason = _REMOVED[name]
                if value != only:
                    faults.append(f"config.{name} is {value!r} there. {reason}")
            elif key not in section:
                faults.append(f"config.{prefix}{key} is not a field of this version.")
            elif isinstance(value, dict):
                fill(section[key], value, f"{prefix}{key}.")
            else:
                section[key] = _as_tuples(value)

    fill(config, json.loads(text), "")
    if faults:
        raise ValueError("the stored configuration does not fit: " + " ".join(faults))
    return config


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
