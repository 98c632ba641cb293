"""Every field of a configuration: one row each.

`base_config` is the paper's recipe for ADE20K with SegNeXt-B; a file in ``configs/``
holds what differs from it, or from a neighbour (`segnext_jax.config.start_from`).

Sources, unless a row names another: the paper's section 4 and
``local_configs/segnext/base/segnext.base.512x512.ade.160k.py`` of SegNeXt@c87bcae.
"""

import dataclasses
from typing import Any

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
from segnext_jax.config.fields.field import EVALUATION, PREDICTION, TRAINING, Field

FIELDS: dict[str, Field] = {
    field.name: field
    for part in (run, data, model, optimizer, evaluation, classification)
    for field in part.FIELDS
}


@dataclasses.dataclass(frozen=True)
class Removed:
    """A field of earlier versions; stored configurations are read without.

    Attributes:
      remedy: What takes its place, in one sentence.
      only: The value that a stored configuration may hold. None: any.
    """

    remedy: str
    only: Any = None


REMOVED = {
    "evaluation.checkpoint": Removed(
        "Name the checkpoint with --which=latest, best or a step."
    ),
    "model.decomposition": Removed(
        "Vector quantisation and concept decomposition were removed: the repository's "
        "commit 986ebcb has them.",
        only="nmf",
    ),
}
# Values of earlier versions, and those that stored configurations are read with.
RENAMED = {("model.depthwise", "pallas"): "auto"}


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
    "RENAMED",
    "TRAINING",
    "Field",
    "base_config",
]
