"""Every setting of a run: default, unit, meaning, source.

`base_config` is the paper's recipe for ADE20K with SegNeXt-B; a file in ``configs/``
holds what differs from it, or from a neighbour (`start_from`). `load` reads such a
file, applies ``--config.<field>=<value>`` overrides, checks everything, and names all
faults at once.
"""

import difflib
import importlib.util
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from segnext_jax.config_classification import classification_section, faults_of_task
from segnext_jax.config_overrides import apply
from segnext_jax.config_rules import validate

# Fields that change neither the course of a training nor what a checkpoint means: a run
# may be resumed with other values of these.
RESUMABLE_FIELDS = (
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_best",
    "max_broken_steps",
    "profile_steps",
    "debug",
    "wandb_project",
    "data.data_dir",
    "data.folder",
    "data.num_workers",
    "data.num_threads",
    "data.prefetch_batches",
    "data.stall_seconds",
    "model.remat",
    "mesh.*",
    "evaluation.*",
)


def base_config() -> ConfigDict:
    """Return the default configuration, locked: SegNeXt-B on ADE20K.

    Sources, unless noted: the paper's section 4 and
    ``local_configs/segnext/base/segnext.base.512x512.ade.160k.py`` of SegNeXt@c87bcae.
    """
    config = ConfigDict()
    # segmentation, or classification: pre-training of the encoder on photographs with
    # one class each. Fields that a task does not have keep their defaults.
    config.task = "segmentation"
    # Seed of weights, data order, augmentation, dropout and NMF bases.
    config.seed = 0
    # Weights to start from: a PyTorch checkpoint of SegNeXt or of its encoder, a folder
    # of python -m segnext_jax.convert, or a run's workdir. Empty: random weights.
    config.init_from = ""
    # Images per step over all devices and processes (paper: 16; Cityscapes 8).
    config.batch_size = 16
    # Parts of the batch that pass the network one after another, to save memory; see
    # segnext_jax.training.step.make_train_step for what differs. 1: the whole batch.
    config.accumulate_steps = 1
    # Optimizer steps of the whole run.
    config.num_steps = 160_000
    # Decay of a moving average of weights and running statistics, which begins with the
    # initial ones and is what is evaluated and used (0.999 to 0.9999). 0: none is kept.
    config.average_decay = 0.0
    # Steps between two lines of metrics.
    config.log_every = 50
    # Steps between two evaluations on the validation split; also at the end.
    config.eval_every = 8_000
    # Steps between two checkpoints; also at each evaluation and at the end.
    config.checkpoint_every = 2_000
    # Number of latest checkpoints kept, and of those with the best mIoU (top-1).
    config.keep_checkpoints = 2
    config.keep_best = 1
    # Steps whose loss or gradient may be nan or infinite; they change no weight, and
    # broken_steps.jsonl lists their images. One more ends the run.
    config.max_broken_steps = 0
    # First and last step of a trace in profile/ (TensorBoard, Perfetto); (0, 0): none.
    config.profile_steps = (0, 0)
    # Stop with a traceback where the first nan arises; several times slower.
    config.debug = False
    # Project of Weights & Biases that gets the numbers, too; empty: none.
    config.wandb_project = ""

    data = config.data = ConfigDict()
    # Key of segnext_jax.datasets.SPECS; "folder": the folder below, as it is; or the
    # name of a set that data/folder/prepare.py has made. Classification: "folder", or
    # the name of a set that data/imagenet/prepare.py has made.
    data.name = "ade20k"
    # Folder with images/, masks/ and classes.txt (segnext_jax/datasets/folder.py).
    data.folder = ""
    # Of a set of your own: class names, (red, green, blue) of each, and colours of
    # ignored pixels. Empty: those of classes.txt or of the preparation. A run's stored
    # configuration names them.
    data.classes = ()
    data.colours = ()
    data.ignore_colours = ()
    # What the masks of the folder hold: ids (grey or palette files), colours.
    data.mask_values = "ids"
    # Whether their id 0 means "ignored", and the classes begin at 1.
    data.zero_is_ignore = False
    # (id in the masks, train id or 255) pairs; empty: masks hold train ids.
    data.id_map = ()
    # Folder of prepared data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    data.data_dir = ""
    # Split that is trained on; empty: the data set's own (train; VOC 2012: trainaug).
    data.train_split = ""
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
    # Probability of turning a crop about its centre, and the largest angle in degrees
    # (mmsegmentation's RandomRotate; the paper has none).
    data.rotation_probability = 0.0
    data.max_rotation = 10.0
    # None: each image once an epoch. A temperature (0.01 in DAFormer): images are drawn
    # with a probability that favours rare classes; reads all masks at the start.
    data.rare_class_temperature = placeholder(float)
    # Probability of turning an image to grey (the paper has none).
    data.grey_probability = 0.0
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
    # Seconds without a batch after which a warning is logged.
    data.stall_seconds = 120.0

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
    # Formulation of depthwise convolutions: shifted, grouped; auto: kernels of our own
    # for NVIDIA GPUs, shifted elsewhere.
    model.depthwise = "auto"
    # Type of activations: float32, bfloat16.
    model.dtype = "float32"
    # First stages of the encoder that are neither trained nor adapt their BatchNorms.
    model.frozen_stages = 0
    # BatchNorms use and keep their running statistics in training.
    model.freeze_batch_norm = False
    # Compute each block again in the backward pass, which saves memory for time.
    model.remat = False

    mesh = config.mesh = ConfigDict()
    # Devices over which parameters and moments are spread; it divides the number of
    # devices. 1: each holds them whole.
    mesh.fsdp = 1
    # Arrays of fewer values are whole on each device all the same.
    mesh.fsdp_min_size = 16_384

    optimizer = config.optimizer = ConfigDict()
    # AdamW; poly, times the warm-up (official), or cosine, after it (timm).
    optimizer.schedule = "poly"
    optimizer.learning_rate = 6e-5
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.epsilon = 1e-8
    optimizer.weight_decay = 0.01
    # Factor on the learning rate of the decode head (paramwise_cfg: head).
    optimizer.head_lr_multiplier = 10.0
    # Factor on the weight decay of the encoder's norms (paramwise_cfg: norm).
    optimizer.norm_decay_multiplier = 0.0
    # Factor on the learning rate from one layer of the encoder to the one before it
    # (1: none; BEiT, ConvNeXt: 0.65 to 0.9); see training/optimizer.py.
    optimizer.layer_decay = 1.0
    # Euclidean norm that the gradient is scaled down to. 0: it is not (official).
    optimizer.max_gradient_norm = 0.0
    # Type in which the mean of gradients is kept: float32, bfloat16.
    optimizer.momentum_dtype = "float32"
    # Exponent of the polynomial decay; floor of both.
    optimizer.power = 1.0
    optimizer.min_learning_rate = 0.0
    # Last steps, at that floor, of a cosine.
    optimizer.cooldown_steps = 0
    # Steps of linear warm-up, and the factor it begins with.
    optimizer.warmup_steps = 1_500
    optimizer.warmup_ratio = 1e-6

    loss = config.loss = ConfigDict()
    # Factors of the terms that are added up; 0: the term is left out.
    weights = loss.weights = ConfigDict()
    weights.cross_entropy = 1.0
    weights.focal = 0.0
    weights.dice = 0.0
    weights.lovasz = 0.0
    # Cross-entropy and focal: mean over "all" pixels (official) or over the "valid"
    # (labelled) ones.
    loss.average = "all"
    # Cross-entropy and focal: one factor per class (None: 1).
    loss.class_weights = placeholder(tuple)
    # Cross-entropy: share of the label that is spread over all classes.
    loss.label_smoothing = 0.0
    # Cross-entropy: hard pixels kept per image, on the mean over the batch (OHEM;
    # 0: all pixels; mmsegmentation: 100,000), and the probability below which a pixel
    # is hard; 0: the ohem_min_kept hardest alone.
    loss.ohem_min_kept = 0
    loss.ohem_threshold = 0.7
    # Focal: exponent of 1 - p; 0, or at least 1 (paper: 2).
    loss.focal_gamma = 2.0
    # Dice: added to both sides of the fraction (mmsegmentation: 1).
    loss.dice_smooth = 1.0

    evaluation = config.evaluation = ConfigDict()
    # Images per step over all devices, of equal size; the last is filled up.
    evaluation.batch_size = 8
    # Checkpoint that --mode=evaluate takes: latest, best (by mIoU).
    evaluation.checkpoint = "latest"
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

    config.classification = classification_section()
    config.lock()
    return config


def start_from(file: str, neighbour: str) -> ConfigDict:
    """Return the configuration of another file in the same folder, to be changed.

    Args:
      file: ``__file__`` of the configuration that is being written.
      neighbour: Name of the other one, as ``cityscapes_base.py``.

    Raises:
      ValueError: If it is missing or fails.
    """
    return _read(pathlib.Path(file).parent / neighbour)


def load(path: str | None, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the validated configuration of a file, with overrides applied.

    Args:
      path: A Python file with ``get_config() -> ConfigDict``; None: `base_config`.
      overrides: ``"model.variant=small"``, ``"data.crop_size=176,240"``, ...

    Raises:
      ValueError: If the file is missing or fails, or any field is unknown or
        impossible; the message lists all faults.
    """
    config = base_config() if path is None else _read(pathlib.Path(path))
    faults = []
    for override in overrides:
        fault = apply(config, override)
        if fault:
            faults.append(fault)
    faults.extend(validate(config))
    faults.extend(faults_of_task(config, base_config()))
    if faults:
        name = path or "the configuration"
        raise ValueError(f"{name} cannot run as given:\n  - " + "\n  - ".join(faults))
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
                section[key] = _as_tuples(value)

    fill(config, json.loads(text), "")
    if faults:
        raise ValueError("the stored configuration does not fit: " + " ".join(faults))
    return config


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
