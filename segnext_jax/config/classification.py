"""The settings of pre-training alone, and which settings each task does not have."""

import fnmatch
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.overrides import flatten

# Patterns of the fields that a task alone has: in the other they keep their defaults,
# so that no setting is given in vain.
FIELDS_OF_TASK = {
    "segmentation": (
        *("data.colours", "data.ignore_colours", "data.mask_values", "data.id_map"),
        *("data.zero_is_ignore", "data.train_split", "data.base_scale"),
        *("data.scale_range", "data.max_class_share", "data.rotation_probability"),
        *("data.max_rotation", "data.rare_class_temperature", "data.grey_probability"),
        *("data.photometric", "model.head_channels", "model.rank"),
        *("model.dropout_rate", "model.decomposition", "model.nmf_*"),
        *("optimizer.head_lr_multiplier", "optimizer.norm_decay_multiplier"),
        *("optimizer.layer_decay", "loss.weights.*", "loss.average"),
        *("loss.class_weights", "loss.ohem_*", "loss.focal_gamma"),
        *("loss.dice_smooth", "evaluation.scale", "evaluation.ratios"),
        *("evaluation.flip", "evaluation.size_multiple", "evaluation.alignment"),
        *("evaluation.mode", "evaluation.window", "evaluation.stride"),
        *("evaluation.tile_mebibytes", "evaluation.num_bases"),
        *("evaluation.boundary_iou", "evaluation.boundary_ratio"),
        *("evaluation.num_overlays",),
    ),
    "classification": ("classification.*",),
}
# Likewise of a schedule.
FIELDS_OF_SCHEDULE = {
    "poly": ("optimizer.power",),
    "cosine": ("optimizer.cooldown_steps",),
}


def classification_section() -> ConfigDict:
    """Return ``config.classification``: how images are changed and tested.

    Source, unless noted: ``train.py`` and ``train.sh`` of the VAN repository and the
    defaults of timm 0.4.12, which it uses.
    """
    options = ConfigDict()
    # Share of the photograph's area that a crop shows, and its width over its height
    # before it is resized; bilinear or bicubic, by chance.
    options.area_range = (0.08, 1.0)
    options.aspect_range = (3 / 4, 4 / 3)
    # RandAugment (rand-m9-mstd0.5-inc1): operations drawn per image (0: none), the
    # probability of each to be applied, mean and deviation of its magnitude in [0, 10].
    options.augment_operations = 2
    options.augment_probability = 0.5
    options.augment_magnitude = 9.0
    options.augment_deviation = 0.5
    # Brightness, contrast and saturation times 1 - x to 1 + x, after that. VAN's
    # command line says 0.4, which timm leaves out where RandAugment is on.
    options.colour_jitter = 0.0
    # Beta(alpha, alpha) of mixup and of cutmix (0: without it), and the probability of
    # cutmix where there are both.
    options.mixup_alpha = 0.8
    options.cutmix_alpha = 1.0
    options.switch_probability = 0.5
    # Images of a batch that are mixed in the same way (VAN: those of one GPU).
    options.mix_group_size = 128
    # Probability of replacing a rectangle of an image by noise.
    options.erase_probability = 0.25
    # Evaluation: side of the central crop over the image's shorter side (VAN: 0.9).
    options.crop_share = 0.9
    return options


def faults_of_task(config: ConfigDict, defaults: ConfigDict) -> list[str]:
    """Return what is given in vain, one sentence each.

    Args:
      config: The configuration.
      defaults: `segnext_jax.config.base_config`.
    """
    given, usual = dict(flatten(config)), dict(flatten(defaults))
    return [
        f"config.{field} is for {kind}={theirs!r} alone: got {given[field]!r} with "
        f"{ours!r}. Leave it at {usual[field]!r}."
        for kind, ours, table in (
            ("config.task", config.task, FIELDS_OF_TASK),
            (
                "config.optimizer.schedule",
                config.optimizer.schedule,
                FIELDS_OF_SCHEDULE,
            ),
        )
        for theirs, patterns in table.items()
        if ours in table and theirs != ours
        for field in given
        if given[field] != usual[field] and _matches(field, patterns)
    ]


def _matches(field: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(field, pattern) for pattern in patterns)


def faults_of_classification(config: Any) -> list[str]:
    """Return what is wrong with data and mixing, one sentence each.

    Args:
      config: A configuration whose task is classification.
    """
    data, options, faults = config.data, config.classification, []
    if data.name == "folder" and not data.folder:
        faults.append('config.data.folder must name a folder if data.name is "folder".')
    if data.name != "folder" and data.folder:
        faults.append(
            'config.data.folder is read if config.data.name is "folder": got '
            f"{data.folder!r} with {data.name!r}. Leave one out."
        )
    size = min(options.mix_group_size, config.batch_size)
    is_mixed = options.mixup_alpha or options.cutmix_alpha
    if is_mixed and size > 0 and (size % 2 or config.batch_size % size):
        faults.append(
            "config.batch_size must be a multiple of config.classification."
            "mix_group_size, or less, and the smaller one even, as images are mixed in "
            f"pairs: got {config.batch_size} and {options.mix_group_size}."
        )
    return faults
