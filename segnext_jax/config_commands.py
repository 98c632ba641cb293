"""Which fields each command uses; a command refuses the others."""

import fnmatch
from collections.abc import Iterable, Sequence

# The network, its classes, and how it sees an image.
_PREDICTOR = (
    *("seed", "data.name", "data.folder", "data.data_dir", "data.classes"),
    *("data.colours", "data.mean", "data.std", "model.variant", "model.embed_dims"),
    *("model.depths", "model.mlp_ratios", "model.head_channels", "model.rank"),
    *("model.decomposition", "model.nmf_eval_*", "model.depthwise", "model.dtype"),
    *("evaluation.scale", "evaluation.ratios", "evaluation.flip"),
    *("evaluation.size_multiple", "evaluation.alignment", "evaluation.mode"),
    *("evaluation.window", "evaluation.stride", "evaluation.tile_mebibytes"),
)
# Whatever loads a network to predict, and --mode=evaluate.
FIELDS_OF_COMMAND = {
    "prediction": _PREDICTOR,
    "evaluation": (
        *_PREDICTOR,
        *("data.mask_values", "data.zero_is_ignore", "data.id_map"),
        *("data.ignore_colours", "data.crop_size", "data.num_threads"),
        *("evaluation.batch_size", "evaluation.num_bases", "evaluation.boundary_*"),
        *("classification.crop_share",),
    ),
}
# Of these the fields that change time and memory, or add draws to the one that counts.
_WITHOUT_EFFECT = (
    *("data.num_threads", "evaluation.batch_size", "evaluation.num_bases"),
    *("evaluation.tile_mebibytes", "model.depthwise"),
)


def faults_of_command(fields: Iterable[str], command: str) -> list[str]:
    """Return one sentence for each field that a command does not use.

    Args:
      fields: Names of fields that are given.
      command: A key of `FIELDS_OF_COMMAND`.
    """
    used = FIELDS_OF_COMMAND[command]
    return [
        f"config.{field} has no effect on {command}: leave it out."
        for field in fields
        if not _matches(field, used)
    ]


def changes_numbers(field: str) -> bool:
    """Return whether an evaluation may give other numbers with another value."""
    used = FIELDS_OF_COMMAND["evaluation"]
    return _matches(field, used) and not _matches(field, _WITHOUT_EFFECT)


def _matches(field: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(field, pattern) for pattern in patterns)
