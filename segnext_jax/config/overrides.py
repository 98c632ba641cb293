"""Fields of a configuration: set by text (``data.crop_size=176,240``), compared."""

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.config.fields import FIELDS, REMOVED


def apply(config: ConfigDict, override: str) -> str | None:
    """Set one ``field=value`` in place; return the fault, if there is one."""
    name, separator, text = override.partition("=")
    if name in REMOVED:
        return f"config.{name} is not a field any more. {REMOVED[name].remedy}"
    if name not in FIELDS:
        if any(field.startswith(name + ".") for field in FIELDS):
            return f"config.{name} is a section: set one of its fields."
        return f"config.{name} is not a field.{_suggestion(name)}"
    if not separator:
        return f"config.{name} needs a value: write --config.{name}=<value>."
    kind = FIELDS[name].kind
    value = kind.parse(text)
    if not kind.accepts(value):
        return f"config.{name} must be {kind.requirement}: got {text[:200]!r}."
    assign(config, name, value)
    return None


def assign(config: ConfigDict, name: str, value: Any) -> None:
    """Set ``"section.field"``, whatever the value's type: `validate` looks at it."""
    *parents, leaf = name.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[leaf] = value


# What other programs call a field, or what is no field here.
MEANT = {
    name: meant
    for names, meant in (
        ("lr base_lr", "optimizer.learning_rate"),
        ("steps max_steps max_iters iterations", "num_steps"),
        ("bs batch samples_per_gpu", "batch_size"),
        ("crop image_size img_size input_size size", "data.crop_size"),
        ("dataset dataset_name", "data.name"),
        ("data_root root data_path", "data.folder"),
        ("backbone arch encoder", "model.variant"),
        ("pretrained load_from weights checkpoint", "init_from"),
        ("fp16 bf16 amp precision", "model.dtype"),
        ("workers num_worker", "data.num_workers"),
        ("val_interval eval_interval val_every", "eval_every"),
        ("save_interval save_every", "checkpoint_every"),
        ("ema ema_decay", "average_decay"),
        ("clip grad_clip", "optimizer.max_gradient_norm"),
        ("warmup warmup_iters", "optimizer.warmup_steps"),
        ("tta multi_scale", "evaluation.ratios"),
        ("class_weight", "loss.class_weights"),
        ("dropout", "model.dropout_rate"),
        ("drop_path", "model.drop_path_rate"),
    )
    for name in names.split()
}
_ELSEWHERE = {
    name: meant
    for names, meant in (
        (
            "num_classes n_classes",
            "The classes come from the data set: set config.data.name.",
        ),
        (
            "epochs num_epochs max_epochs",
            "Durations are in steps: set config.num_steps.",
        ),
        (
            "device devices gpus num_gpus",
            "All devices of the machine are used: hide some by CUDA_VISIBLE_DEVICES, "
            "or set JAX_PLATFORMS=cpu.",
        ),
        ("workdir work_dir output_dir", "The run's folder is --workdir=FOLDER."),
        (
            "resume resume_from",
            "The same command goes on with the run of its --workdir.",
        ),
        (
            "ignore_index ignore_label",
            "Ignored pixels have id 255; config.data.id_map gives it to others.",
        ),
    )
    for name in names.split()
}


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    if leaf in _ELSEWHERE:
        return f" {_ELSEWHERE[leaf]}"
    if leaf in MEANT:
        return f" Did you mean config.{MEANT[leaf]}?"
    same_leaf = [field for field in FIELDS if field.rsplit(".", 1)[-1] == leaf]
    suggestions = [f"config.{field}" for field in (same_leaf or close)]
    if suggestions:
        return f" Did you mean {' or '.join(suggestions)}?"
    return " segnext-jax configs NAME --print lists all fields."


_SECTIONS = {
    name[:end] for name in FIELDS for end, letter in enumerate(name) if letter == "."
}


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.field", value) for every field.

    A section where none belongs is a value: it may hold itself.
    """
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict) and prefix + key in _SECTIONS:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences(
    stored: ConfigDict, given: ConfigDict, *, ignore: Collection[str] = ()
) -> list[str]:
    """Return one line for each field that differs.

    Args:
      stored: The configuration of a run.
      given: The configuration that is to go on with it.
      ignore: Names of fields that do not count.
    """
    stored_fields = dict(flatten(stored))
    return [
        f"config.{name} is {stored_fields.get(name)!r} there, {value!r} here"
        for name, value in flatten(given)
        if stored_fields.get(name) != value and name not in ignore
    ]
