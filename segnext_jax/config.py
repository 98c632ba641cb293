"""Every setting of a run: default, unit, meaning, source.

`base_config` is the paper's recipe for ADE20K with SegNeXt-B; a file in ``configs/``
holds what differs. `load` reads such a file, applies ``--config.<field>=<value>``
overrides, checks everything, and names all faults at once.
"""

import ast
import difflib
import fnmatch
import importlib.util
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from segnext_jax.config_rules import RULES
from segnext_jax.datasets import SPECS

# Fields that change neither the course of a training nor what a checkpoint means: a run
# may be resumed with other values of these.
RESUMABLE_FIELDS = (
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "data.data_dir",
    "data.num_workers",
    "data.num_threads",
    "data.prefetch_batches",
    "evaluation.*",
)


def base_config() -> ConfigDict:
    """Return the default configuration, locked: SegNeXt-B on ADE20K.

    Sources, unless noted: the paper's section 4 and
    ``local_configs/segnext/base/segnext.base.512x512.ade.160k.py`` of SegNeXt@c87bcae.
    """
    config = ConfigDict()
    # Seed of weights, data order, augmentation, dropout and NMF bases.
    config.seed = 0
    # Weights to start from: a PyTorch checkpoint of SegNeXt or of its encoder, a folder
    # of python -m segnext_jax.convert, or a run's workdir. Empty: random weights.
    config.init_from = ""
    # Images per step over all devices and processes (paper: 16; Cityscapes 8).
    config.batch_size = 16
    # Optimizer steps of the whole run.
    config.num_steps = 160_000
    # Steps between two lines of metrics.
    config.log_every = 50
    # Steps between two evaluations on the validation split; also at the end.
    config.eval_every = 8_000
    # Steps between two checkpoints; also at each evaluation and at the end.
    config.checkpoint_every = 2_000
    # Number of latest checkpoints kept.
    config.keep_checkpoints = 2

    data = config.data = ConfigDict()
    # Key of segnext_jax.datasets.SPECS.
    data.name = "ade20k"
    # Folder of prepared data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    data.data_dir = ""
    # (height, width) of training crops, in pixels.
    data.crop_size = (512, 512)
    # (long side, short side) that scale 1 fits images into, in pixels.
    data.base_scale = (2048, 512)
    # Range of the random scale, uniform.
    data.scale_range = (0.5, 2.0)
    # A crop is redrawn, up to ten times, while one class covers this share or more.
    data.max_class_share = 0.75
    # Probability of a horizontal flip.
    data.flip_probability = 0.5
    # Random brightness, contrast, saturation and hue (PhotoMetricDistortion).
    data.photometric = True
    # RGB mean and standard deviation of ImageNet, in grey levels (0..255).
    data.mean = (123.675, 116.28, 103.53)
    data.std = (58.395, 57.12, 57.375)
    # Worker processes of the input pipeline per host; 0: threads of the main process.
    data.num_workers = 4
    # Reading threads per worker (or in the main process).
    data.num_threads = 4
    # Batches prepared ahead per worker.
    data.prefetch_batches = 4

    model = config.model = ConfigDict()
    # Key of segnext_jax.models.segnext.VARIANTS: tiny, small, base, large.
    model.variant = "base"
    # Sizes that replace the variant's own where given (None: the variant's).
    model.embed_dims = placeholder(tuple)
    model.depths = placeholder(tuple)
    model.mlp_ratios = placeholder(tuple)
    model.drop_path_rate = placeholder(float)
    model.head_channels = placeholder(int)
    model.rank = placeholder(int)
    # Channel dropout before the classifier (Dropout2d).
    model.dropout_rate = 0.1
    # Matrix decomposition of the Hamburger: nmf (published networks), vq, cd.
    model.decomposition = "nmf"
    # Gradient through all of its steps (full, official) or the last (one_step, JSeg).
    model.nmf_gradient = "full"
    # Its steps in training and at inference (ham_head.py).
    model.nmf_train_steps = 6
    model.nmf_eval_steps = 7
    # Starting bases at inference: fixed (by the seed below, the same for each image) or
    # random (drawn anew for each image, as the official code does).
    model.nmf_eval_bases = "fixed"
    model.nmf_eval_seed = 0
    # Formulation of depthwise convolutions: shifted, grouped.
    model.depthwise = "shifted"
    # Type of activations: float32, bfloat16.
    model.dtype = "float32"

    optimizer = config.optimizer = ConfigDict()
    # AdamW, poly schedule times linear warm-up.
    optimizer.learning_rate = 6e-5
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.epsilon = 1e-8
    optimizer.weight_decay = 0.01
    # Factor on the learning rate of the decode head (paramwise_cfg: head).
    optimizer.head_lr_multiplier = 10.0
    # Factor on the weight decay of the encoder's norms (paramwise_cfg: norm).
    optimizer.norm_decay_multiplier = 0.0
    # Exponent and floor of the polynomial decay.
    optimizer.power = 1.0
    optimizer.min_learning_rate = 0.0
    # Steps of linear warm-up, and the factor it begins with.
    optimizer.warmup_steps = 1_500
    optimizer.warmup_ratio = 1e-6

    loss = config.loss = ConfigDict()
    # Cross-entropy over "all" pixels (official) or over the "valid" (labelled) ones.
    loss.average = "all"

    evaluation = config.evaluation = ConfigDict()
    # Images per step over all devices, of equal size; the last is filled up.
    evaluation.batch_size = 8
    # Whether to evaluate the starting weights, too.
    evaluation.at_start = False
    # (long side, short side) that images are fitted into; (0, 0): native size.
    evaluation.scale = (2048, 512)
    # The scale (or native size) times each of these, probabilities averaged; the
    # paper's multi-scale: (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) with flip.
    evaluation.ratios = (1.0,)
    # Whether each image is also seen mirrored.
    evaluation.flip = False
    # Both sides are then multiples of this (Cityscapes: 1) ...
    evaluation.size_multiple = 32
    # ... because the image is stretched (resize, official) or padded with the mean
    # colour and the logits cut off (pad, mmsegmentation 1.x).
    evaluation.alignment = "resize"
    # The whole image at once (whole) or overlapping windows of it (slide), where the
    # logits of windows are averaged.
    evaluation.mode = "whole"
    # (height, width) of windows, and the distance of one from the next, in pixels
    # (official, Cityscapes).
    evaluation.window = (1024, 1024)
    evaluation.stride = (768, 768)
    # Scores of one tile of the original images on one device, in MiB: bounds memory,
    # changes no result. 8 fits the cache of a CPU; a GPU is served better by 64.
    evaluation.tile_mebibytes = 8
    # Draws of fixed NMF bases, by model.nmf_eval_seed and the seeds after it, that
    # --mode=evaluate evaluates one after the other, to report the spread.
    evaluation.num_bases = 1
    # Whether to report boundary IoU, and the width of boundaries as a share of the
    # image's diagonal (Cheng et al., CVPR 2021).
    evaluation.boundary_iou = False
    evaluation.boundary_ratio = 0.02
    # Validation images drawn with their prediction at each evaluation.
    evaluation.num_overlays = 4
    config.lock()
    return config


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the validated configuration of a file, with overrides applied.

    Args:
      path: A Python file with ``get_config() -> ConfigDict``.
      overrides: ``"model.variant=small"``, ``"data.crop_size=176,240"``, ...

    Raises:
      ValueError: If the file is missing or fails, or any field is unknown or
        impossible; the message lists all faults.
    """
    config = _read(pathlib.Path(path))
    faults = []
    for override in overrides:
        fault = _apply(config, override)
        if fault:
            faults.append(fault)
    faults.extend(validate(config))
    if faults:
        raise ValueError(f"{path} cannot run as given:\n  - " + "\n  - ".join(faults))
    return config


def _read(path: pathlib.Path) -> ConfigDict:
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("*.py"))
        close = difflib.get_close_matches(str(path), known, n=3, cutoff=0.5) or known
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"--config must name a Python file: {path} does not exist.{hint}"
        )
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"--config must name a Python file (.py): got {path}.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # Whatever the user's file raises is the user's to mend.
        message = str(error).strip("\"'")
        raise ValueError(
            f"{path} must define get_config() that returns a configuration: it failed "
            f"with {type(error).__name__}: {message}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config() in {path} must return a ConfigDict, as base_config() does: "
            f"got {type(config).__name__}."
        )
    return config


def _apply(config: ConfigDict, override: str) -> str | None:
    """Set one ``field=value`` in place; return the fault, if there is one."""
    name, separator, text = override.partition("=")
    fields = dict(flatten(config))
    if name not in fields:
        if any(field.startswith(name + ".") for field in fields):
            return f"config.{name} is a section: set one of its fields."
        return f"config.{name} is not a field.{_suggest(name, fields)}"
    if not separator:
        return f"config.{name} needs a value: write --config.{name}=<value>."
    section, leaf = config, name
    if "." in name:
        parent, leaf = name.rsplit(".", 1)
        for part in parent.split("."):
            section = section[part]
    try:
        section[leaf] = _parse(text, section.get_type(leaf))
    except (TypeError, ValueError, SyntaxError):
        wanted = section.get_type(leaf).__name__
        return f"config.{name} must be of type {wanted}: got {text!r}."
    return None


def _parse(text: str, wanted: type) -> Any:
    if wanted is str:
        return text
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = ast.literal_eval(text)
    if wanted is tuple and not isinstance(value, tuple):
        value = tuple(value) if isinstance(value, list) else (value,)
    if isinstance(value, bool):
        raise TypeError(text)
    return value


def _suggest(name: str, fields: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [field for field in fields if field.rsplit(".", 1)[-1] == leaf]
    suggestions = [f"config.{field}" for field in (same_leaf or close)]
    if suggestions:
        return f" Did you mean {' or '.join(suggestions)}?"
    return " All fields stand in segnext_jax/config.py."


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("section.field", value) for every field."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_json(config: ConfigDict) -> str:
    """Return the configuration as JSON text; `from_json` reads it."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Return the configuration that `to_json` wrote.

    Fields that this version does not know are refused; fields that it has gained since
    keep their defaults.

    Raises:
      ValueError: If the text is not such a configuration.
    """
    config = base_config()
    faults = []

    def fill(section: ConfigDict, values: dict, prefix: str) -> None:
        for key, value in values.items():
            if key not in section:
                faults.append(f"config.{prefix}{key} is not a field of this version.")
            elif isinstance(value, dict):
                fill(section[key], value, f"{prefix}{key}.")
            else:
                section[key] = tuple(value) if isinstance(value, list) else value

    fill(config, json.loads(text), "")
    if faults:
        raise ValueError("the stored configuration does not fit: " + " ".join(faults))
    return config


def differences(
    stored: ConfigDict,
    given: ConfigDict,
    *,
    ignore: Sequence[str] = (),
) -> list[str]:
    """Return one line for each field that differs.

    Args:
      stored: The configuration of a run.
      given: The configuration that is to go on with it.
      ignore: Patterns of fields that do not count, as ``section.*``.
    """
    stored_fields, given_fields = dict(flatten(stored)), dict(flatten(given))
    return [
        f"config.{field} is {stored_fields.get(field)!r} there, {value!r} here"
        for field, value in given_fields.items()
        if stored_fields.get(field) != value
        and not any(fnmatch.fnmatchcase(field, pattern) for pattern in ignore)
    ]


def validate(config: ConfigDict) -> list[str]:
    """Return all faults of a configuration, one sentence each; empty if it can run."""
    faults = []
    fields = dict(flatten(config))
    for field, is_valid, requirement in RULES:
        value = fields[field]
        if not is_valid(value):
            faults.append(f"config.{field} must be {requirement}: got {value!r}.")
    if config.data.name not in SPECS:
        close = difflib.get_close_matches(config.data.name, SPECS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        faults.append(
            f"config.data.name must be one of {', '.join(SPECS)}: "
            f"got {config.data.name!r}.{hint}"
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
    if config.optimizer.warmup_steps >= config.num_steps > 0:
        faults.append(
            "config.optimizer.warmup_steps must be less than config.num_steps, or the "
            "learning rate never reaches its height: got "
            f"{config.optimizer.warmup_steps} and {config.num_steps}."
        )
    return faults
