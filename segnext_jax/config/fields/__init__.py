"""Every field of a configuration: one row each.

`base_config` is the paper's recipe for ADE20K with SegNeXt-B; a file in ``configs/``
holds what differs from it, or from a neighbour (`segnext_jax.config.start_from`).

Sources, unless a row names another: the paper's section 4 and
``local_configs/segnext/base/segnext.base.512x512.ade.160k.py`` of SegNeXt@c87bcae.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from segnext_jax.config.fields import (
    classification,
    data,
    evaluation,
    model,
    optimizer,
    run,
)
from segnext_jax.config.fields.field import (
    EVALUATION,
    PREDICTION,
    TRAINING,
    Field,
)

FIELDS: dict[str, Field] = {
    field.name: field
    for part in (run, data, model, optimizer, evaluation, classification)
    for field in part.FIELDS
}
# Fields of earlier versions, and what takes their place. Configurations that were
# stored with them are read without.
REMOVED = {
    "evaluation.checkpoint": "Name the checkpoint with --which=latest, best or a step."
}


def base_config() -> ConfigDict:
    """Return the default configuration, locked: SegNeXt-B on ADE20K."""
    config = ConfigDict()
    for name, field in FIELDS.items():
        *parents, leaf = name.split(".")
        section = config
        for parent in parents:
            if parent not in section:
                section[parent] = ConfigDict()
            section = section[parent]
        is_open = field.default is None
        section[leaf] = placeholder(field.kind.type) if is_open else field.default
    config.lock()
    return config


__all__ = [
    "EVALUATION",
    "FIELDS",
    "PREDICTION",
    "REMOVED",
    "TRAINING",
    "Field",
    "base_config",
]
