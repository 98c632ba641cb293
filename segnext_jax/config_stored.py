"""The configuration that a run or a model folder stores, as JSON text."""

import json
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config_classification import faults_of_task
from segnext_jax.config_overrides import REMOVED
from segnext_jax.config_rules import validate
from segnext_jax.config_types import fault_of_type


def parse(text: str, make_defaults: Callable[[], ConfigDict]) -> ConfigDict:
    """Return the configuration of a text, checked as that of a file is.

    Fields that were removed are passed over; fields that were added since keep their
    defaults.

    Args:
      text: What `segnext_jax.config.to_json` gives.
      make_defaults: `segnext_jax.config.base_config`.

    Raises:
      ValueError: If the text is cut, or a field is unknown or impossible.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is too deep"
        raise ValueError(
            f"the stored configuration must be JSON text, which this is not: {reason}. "
            "It is damaged: take a copy of it."
        ) from error
    if not isinstance(values, dict):
        values = {}
    config, defaults = make_defaults(), make_defaults()
    faults = _fill(config, values, "", defaults)
    if not faults and not {"data", "model"} <= values.keys():
        faults = ["it must have the sections data and model."]
    if not faults:
        faults = validate(config, defaults) + faults_of_task(config, defaults)
    if faults:
        raise ValueError("the stored configuration does not fit: " + " ".join(faults))
    return config


def _fill(
    section: ConfigDict, values: dict[str, Any], prefix: str, defaults: ConfigDict
) -> list[str]:
    """Set the fields of a section; return what cannot be, one sentence each."""
    faults = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in REMOVED:
            continue
        inner = section[key] if key in section else None
        if key not in section:
            faults.append(f"config.{name} is not a field of this version.")
        elif isinstance(inner, ConfigDict) != isinstance(value, dict):
            expected = "a section" if isinstance(inner, ConfigDict) else "a field"
            faults.append(f"config.{name} is {expected}: got {value!r}.")
        elif isinstance(inner, ConfigDict):
            faults.extend(_fill(inner, value, f"{name}.", defaults))
        # A ConfigDict would take True for 1.0, and None for anything.
        elif fault := fault_of_type(name, _as_tuples(value), defaults):
            faults.append(fault)
        else:
            section[key] = _as_tuples(value)
    return faults


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
