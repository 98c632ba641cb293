"""What a configuration may be as a whole: rules for one field, and for two.

`segnext_jax.config.fields` says what each field may hold.
"""

from typing import Any

from ml_collections import ConfigDict

from segnext_jax.cli import storage
from segnext_jax.config.fields import EVALUATION, FIELDS, PREDICTION
from segnext_jax.config.kinds import shown
from segnext_jax.config.overrides import flatten
from segnext_jax.datasets.resolve import faults_of, resolve_spec

# What a command takes of the fields of those below it.
_USERS = {"prediction": (PREDICTION,), "evaluation": (PREDICTION, EVALUATION)}


def validate(config: ConfigDict) -> list[str]:
    """Return all faults of a configuration, one sentence each; empty if it can run."""
    given = dict(flatten(config))
    missing = [f"config.{name} is missing." for name in FIELDS if name not in given]
    unknown = [f"config.{name} is not a field." for name in given if name not in FIELDS]
    if missing or unknown:
        return missing + unknown
    faults = [
        fault
        for name, field in FIELDS.items()
        if (fault := field.fault_of(given[name]))
    ]
    # The rules for two fields rely on types.
    faults = faults or _faults_of_places(config.data)
    return faults or [*_given_in_vain(given), *_contradictions(config)]


def _faults_of_places(data: Any) -> list[str]:
    faults = []
    for field in ("folder", "data_dir"):
        try:
            storage.refuse_bucket(data[field], f"config.data.{field}")
        except ValueError as error:
            faults.append(str(error))
    return faults


def faults_of_command(fields: Any, command: str) -> list[str]:
    """Return one sentence for each field that a command does not use.

    Args:
      fields: Names of fields that are given.
      command: "prediction" (whatever loads a network) or "evaluation".
    """
    return [
        f"config.{name} has no effect on {command}: leave it out."
        for name in fields
        if FIELDS[name].used_by not in _USERS[command]
    ]


def changes_numbers(name: str) -> bool:
    """Return whether an evaluation may give other numbers with another value."""
    field = FIELDS[name]
    return field.changes_numbers and field.used_by in _USERS["evaluation"]


def _given_in_vain(given: dict[str, Any]) -> list[str]:
    """Return what another field's value leaves without effect, so that it is said."""
    return [
        f"config.{name} is for config.{field.only[0]}={field.only[1]!r} alone: got "
        f"{shown(given[name])} with {given[field.only[0]]!r}. Leave it at "
        f"{field.default!r}."
        for name, field in FIELDS.items()
        if field.only
        and given[field.only[0]] != field.only[1]
        and given[name] != field.default
    ]


def _contradictions(config: ConfigDict) -> list[str]:
    faults = []
    if config.init_which != "latest" and not config.init_from:
        faults.append(
            "config.init_which is for config.init_from, which is empty: got "
            f"{config.init_which!r}. Leave it out, or name the run to start from."
        )
    if config.task == "classification":
        faults.extend(_faults_of_classification(config))
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


def _faults_of_classification(config: Any) -> list[str]:
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
