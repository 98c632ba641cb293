"""The configuration of a run: its fields, their rules, files and overrides.

A file of ``configs/`` needs `base_config` or `start_from`; `load` reads it.
"""

from segnext_jax.config.fields import RESUMABLE_FIELDS, base_config
from segnext_jax.config.files import from_json, load, start_from, to_json

__all__ = [
    "RESUMABLE_FIELDS",
    "base_config",
    "from_json",
    "load",
    "start_from",
    "to_json",
]
