"""What each field of a configuration may hold: one row per field."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config_classification import faults_of_classification
from segnext_jax.config_overrides import flatten
from segnext_jax.datasets.resolve import faults_of, resolve_spec


def _is_positive(value: Any) -> bool:
    return value is not None and value > 0


def _is_pair(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: len(value) == 2 and all(map(is_valid, value))


def _one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in choices, "one of " + ", ".join(choices)


def _optional(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _is_rate(value: float) -> bool:
    return 0 <= value < 1


def _are_four(value: tuple) -> bool:
    return len(value) == 4 and all(map(_is_positive, value))


def _all(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(map(is_valid, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def _is_colour(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_byte, value))


def _is_id_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_byte, value))


def _is_range(value: tuple) -> bool:
    return _is_pair(_is_positive)(value) and value[0] <= value[1]


_COLOURS = "triples (red, green, blue) of whole numbers in [0, 255]"
_POSITIVE = (_is_positive, "greater than 0")
_NOT_NEGATIVE = (lambda value: value >= 0, "at least 0")
_SHARE = (_is_share, "between 0 and 1")
_RATE = (_is_rate, "at least 0 and less than 1")
_SIZE = (_is_pair(_is_positive), "two sizes in pixels, each greater than 0")
_RANGE = (_is_range, "two factors greater than 0, the smaller one first")
_FOUR = (_optional(_are_four), "four numbers greater than 0, or None")

# Field, test, requirement.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("task", *_one_of("segmentation", "classification")),
    ("seed", *_NOT_NEGATIVE),
    ("batch_size", *_POSITIVE),
    ("accumulate_steps", *_POSITIVE),
    ("num_steps", *_POSITIVE),
    ("average_decay", *_RATE),
    ("log_every", *_POSITIVE),
    ("eval_every", *_POSITIVE),
    ("checkpoint_every", *_POSITIVE),
    ("keep_checkpoints", *_POSITIVE),
    ("keep_best", *_NOT_NEGATIVE),
    ("max_broken_steps", *_NOT_NEGATIVE),
    (
        "profile_steps",
        lambda value: value == (0, 0) or (len(value) == 2 and 0 < value[0] <= value[1]),
        "the first and the last step, from 1, or (0, 0)",
    ),
    ("data.classes", _all(_is_name), "names, in the order of the ids"),
    ("data.colours", _all(_is_colour), _COLOURS),
    ("data.ignore_colours", _all(_is_colour), _COLOURS),
    ("data.mask_values", *_one_of("ids", "colours")),
    ("data.id_map", _all(_is_id_pair), "pairs (id, train id), in [0, 255] each"),
    ("data.crop_size", *_SIZE),
    ("data.base_scale", *_SIZE),
    ("data.scale_range", *_RANGE),
    ("data.max_class_share", *_SHARE),
    ("data.flip_probability", *_SHARE),
    ("data.rotation_probability", *_SHARE),
    ("data.max_rotation", lambda value: 0 <= value <= 180, "between 0 and 180"),
    (
        "data.rare_class_temperature",
        _optional(_is_positive),
        "greater than 0, or None",
    ),
    ("data.grey_probability", *_SHARE),
    ("data.mean", lambda value: len(value) == 3, "three numbers, RGB"),
    (
        "data.std",
        lambda value: len(value) == 3 and all(map(_is_positive, value)),
        "three numbers greater than 0, RGB",
    ),
    ("data.num_workers", *_NOT_NEGATIVE),
    ("data.num_threads", *_POSITIVE),
    ("data.prefetch_batches", *_POSITIVE),
    ("data.stall_seconds", *_POSITIVE),
    ("model.variant", *_one_of("tiny", "small", "base", "large")),
    ("model.embed_dims", *_FOUR),
    ("model.depths", *_FOUR),
    ("model.mlp_ratios", *_FOUR),
    ("model.drop_path_rate", _optional(_is_rate), "at least 0 and less than 1"),
    (
        "model.head_channels",
        _optional(lambda value: value > 0 and value % 32 == 0),
        "a multiple of 32 (GroupNorm has 32 groups), or None",
    ),
    ("model.rank", _optional(_is_positive), "greater than 0, or None"),
    ("model.dropout_rate", *_RATE),
    ("model.decomposition", *_one_of("nmf", "vq", "cd")),
    ("model.nmf_gradient", *_one_of("full", "one_step")),
    ("model.nmf_eval_bases", *_one_of("fixed", "random")),
    ("model.nmf_train_steps", *_POSITIVE),
    ("model.nmf_eval_steps", *_POSITIVE),
    ("model.nmf_eval_seed", *_NOT_NEGATIVE),
    ("model.depthwise", *_one_of("auto", "shifted", "grouped")),
    ("model.dtype", *_one_of("float32", "bfloat16")),
    ("model.frozen_stages", lambda value: 0 <= value <= 4, "0, 1, 2, 3 or 4"),
    ("mesh.fsdp", *_POSITIVE),
    ("mesh.fsdp_min_size", *_NOT_NEGATIVE),
    ("optimizer.schedule", *_one_of("poly", "cosine")),
    ("optimizer.learning_rate", *_POSITIVE),
    ("optimizer.beta1", *_RATE),
    ("optimizer.beta2", *_RATE),
    ("optimizer.epsilon", *_POSITIVE),
    ("optimizer.weight_decay", *_NOT_NEGATIVE),
    ("optimizer.head_lr_multiplier", *_POSITIVE),
    ("optimizer.norm_decay_multiplier", *_NOT_NEGATIVE),
    (
        "optimizer.layer_decay",
        lambda value: 0 < value <= 1,
        "greater than 0 and at most 1",
    ),
    ("optimizer.max_gradient_norm", *_NOT_NEGATIVE),
    ("optimizer.momentum_dtype", *_one_of("float32", "bfloat16")),
    ("optimizer.power", *_NOT_NEGATIVE),
    ("optimizer.min_learning_rate", *_NOT_NEGATIVE),
    ("optimizer.cooldown_steps", *_NOT_NEGATIVE),
    ("optimizer.warmup_steps", *_NOT_NEGATIVE),
    ("optimizer.warmup_ratio", *_SHARE),
    ("loss.weights.cross_entropy", *_NOT_NEGATIVE),
    ("loss.weights.focal", *_NOT_NEGATIVE),
    ("loss.weights.dice", *_NOT_NEGATIVE),
    ("loss.weights.lovasz", *_NOT_NEGATIVE),
    ("loss.average", *_one_of("all", "valid")),
    (
        "loss.class_weights",
        _optional(lambda value: all(weight >= 0 for weight in value)),
        "factors of at least 0, or None",
    ),
    ("loss.label_smoothing", *_RATE),
    ("loss.ohem_min_kept", *_NOT_NEGATIVE),
    ("loss.ohem_threshold", *_SHARE),
    (
        "loss.focal_gamma",
        lambda value: value == 0 or value >= 1,
        "0 or at least 1",
    ),
    ("loss.dice_smooth", *_POSITIVE),
    ("evaluation.batch_size", *_POSITIVE),
    ("evaluation.checkpoint", *_one_of("latest", "best")),
    (
        "evaluation.scale",
        lambda value: value == (0, 0) or _is_pair(_is_positive)(value),
        "two sizes in pixels, or (0, 0)",
    ),
    (
        "evaluation.ratios",
        lambda value: len(value) > 0 and all(map(_is_positive, value)),
        "one or more factors greater than 0",
    ),
    ("evaluation.size_multiple", *_POSITIVE),
    ("evaluation.alignment", *_one_of("resize", "pad")),
    ("evaluation.mode", *_one_of("whole", "slide")),
    ("evaluation.window", *_SIZE),
    ("evaluation.stride", *_SIZE),
    ("evaluation.tile_mebibytes", *_POSITIVE),
    ("evaluation.num_bases", *_POSITIVE),
    (
        "evaluation.boundary_ratio",
        lambda value: 0 < value < 1,
        "greater than 0 and less than 1",
    ),
    ("evaluation.num_overlays", *_NOT_NEGATIVE),
    (
        "classification.area_range",
        lambda value: _is_range(value) and value[1] <= 1,
        "two shares greater than 0 and at most 1, the smaller one first",
    ),
    ("classification.aspect_range", *_RANGE),
    ("classification.augment_operations", *_NOT_NEGATIVE),
    ("classification.augment_probability", *_SHARE),
    (
        "classification.augment_magnitude",
        lambda value: 0 <= value <= 10,
        "between 0 and 10",
    ),
    ("classification.augment_deviation", *_NOT_NEGATIVE),
    ("classification.colour_jitter", *_NOT_NEGATIVE),
    ("classification.mixup_alpha", *_NOT_NEGATIVE),
    ("classification.cutmix_alpha", *_NOT_NEGATIVE),
    ("classification.switch_probability", *_SHARE),
    ("classification.mix_group_size", *_POSITIVE),
    ("classification.erase_probability", *_SHARE),
    (
        "classification.crop_share",
        lambda value: 0 < value <= 1,
        "greater than 0 and at most 1",
    ),
)


def validate(config: ConfigDict) -> list[str]:
    """Return all faults of a configuration, one sentence each; empty if it can run."""
    faults = []
    fields = dict(flatten(config))
    for field, is_valid, requirement in RULES:
        value = fields[field]
        if not is_valid(value):
            faults.append(f"config.{field} must be {requirement}: got {value!r}.")
    if config.task == "classification":
        faults.extend(faults_of_classification(config))
    else:
        faults.extend(faults_of(config.data) or _faults_of_class_weights(config))
    if not any(config.loss.weights.values()):
        faults.append(
            "config.loss.weights must have a term above 0, or there is nothing to "
            "train for: got 0 for all. Set config.loss.weights.cross_entropy to 1."
        )
    options = config.evaluation
    if any(s > w for s, w in zip(options.stride, options.window, strict=False)):
        faults.append(
            "config.evaluation.stride must not exceed the window, or pixels are never "
            f"predicted: got {options.stride} and {options.window} (height, width)."
        )
    if options.num_bases > 1 and config.model.nmf_eval_bases != "fixed":
        faults.append(
            "config.evaluation.num_bases above 1 needs config.model.nmf_eval_bases "
            f"'fixed': got {options.num_bases} and {config.model.nmf_eval_bases!r}."
        )
    optimizer = config.optimizer
    if optimizer.warmup_steps + optimizer.cooldown_steps >= config.num_steps > 0:
        cooldown = f" and {optimizer.cooldown_steps} of cooldown_steps"
        faults.append(
            "config.optimizer.warmup_steps must be less than config.num_steps, or the "
            "learning rate never reaches its height: got "
            f"{optimizer.warmup_steps} and {config.num_steps}"
            f"{cooldown if optimizer.cooldown_steps else ''}."
        )
    return faults


def _faults_of_class_weights(config: ConfigDict) -> list[str]:
    weights = config.loss.class_weights
    if weights is None:
        return []
    num_classes = resolve_spec(config.data).num_classes
    if len(weights) == num_classes:
        return []
    return [
        "config.loss.class_weights must have one factor for each of the "
        f"{num_classes} classes of {config.data.name}: got {len(weights)}."
    ]
