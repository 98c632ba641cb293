"""The configuration of a run: its fields, their rules, files and overrides.

A file of ``configs/`` needs `base_config` or `start_from`; `load` reads it.
"""

from segnext_jax.config.fields import FIELDS, base_config
from segnext_jax.config.files import (
    from_json,
    load,
    read_file,
    refuse_unused,
    start_from,
    to_json,
    with_overrides,
)

# A run may go on with other values of these.
RESUMABLE_FIELDS = frozenset(
    name for name, field in FIELDS.items() if field.is_resumable
)

__all__ = [
    "FIELDS",
    "RESUMABLE_FIELDS",
    "base_config",
    "from_json",
    "load",
    "read_file",
    "refuse_unused",
    "start_from",
    "to_json",
    "with_overrides",
]
