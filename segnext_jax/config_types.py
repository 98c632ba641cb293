"""Whether values of a configuration have the types of their fields."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.overrides import find, flatten, type_of

# What the elements of a tuple are where its default does not tell.
_ELEMENTS = {
    "model.embed_dims": int,
    "model.depths": int,
    "model.mlp_ratios": float,
    "loss.class_weights": float,
}


def faults_of_types(config: ConfigDict, defaults: ConfigDict) -> dict[str, str]:
    """Return the fields whose values are of a wrong type, with a sentence for each.

    Args:
      config: The configuration.
      defaults: `segnext_jax.config.base_config`.
    """
    faults = {
        field: fault_of_type(field, value, defaults) for field, value in flatten(config)
    }
    return {field: fault for field, fault in faults.items() if fault}


def fault_of_type(field: str, value: Any, defaults: ConfigDict) -> str:
    """Return what is wrong with the type of a value; empty if nothing is.

    Args:
      field: Name of the field, as ``"section.field"``.
      value: The value.
      defaults: `segnext_jax.config.base_config`.
    """
    usual, wanted = find(defaults, field), type_of(defaults, field)
    needed = wanted.__name__
    if value is None:
        is_right = usual is None
    elif wanted is tuple:
        element = type(usual[0]) if usual else _ELEMENTS.get(field)
        is_right = isinstance(value, tuple) and (
            element is None or all(map(_IS[element], value))
        )
        needed = f"tuple of {element.__name__}" if element else needed
    else:
        is_right = _IS[wanted](value)
    return (
        "" if is_right else f"config.{field} must be of type {needed}: got {value!r}."
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float) and math.isfinite(value)


_IS: dict[type, Callable[[Any], bool]] = {
    int: _is_int,
    float: _is_float,
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
}
