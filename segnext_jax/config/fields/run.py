"""Fields of the run as a whole: task, length, logging, checkpoints, devices."""

from segnext_jax.config.fields.field import PREDICTION, Field
from segnext_jax.config.kinds import RATE, flag, one_of, pair, text, where, whole

_STEPS = where(
    pair(whole(), ""),
    lambda steps: steps == (0, 0) or 0 < steps[0] <= steps[1],
    "the first and the last step, from 1, or (0, 0)",
)
_WHICH = where(
    text(),
    lambda value: value in ("latest", "best") or value.isdecimal() and value.isascii(),
    "latest, best or the number of a step",
)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    Field("task", "segmentation", one_of("segmentation", "classification"),
        "What is learnt: segmentation, or classification, which pre-trains the "
        "encoder on photographs with one class each. A task refuses the other's "
        "fields."),
    Field("seed", 0, whole(0, 2**32 - 1),
        "Seed of weights, data order, augmentation, dropout and NMF bases.",
        used_by=PREDICTION),
    Field("init_from", "", text(),
        "Weights to start from: a PyTorch checkpoint of SegNeXt or of its encoder, a "
        "folder of segnext-jax convert, a run's workdir, or the name of a published "
        "network (mscan-base; segnext-jax weights lists them). Empty: "
        "random weights."),
    Field("init_which", "latest", _WHICH,
        "Checkpoint to start from, if init_from is a run: latest, best (by mIoU or "
        "top-1), or a step."),
    Field("batch_size", 16, whole(1),
        "Images per step, over all devices and processes.",
        source="The paper: 16; Cityscapes 8."),
    Field("accumulate_steps", 1, whole(1),
        "Parts of the batch that pass the network one after another, to save memory; "
        "segnext_jax/training/step.py says what differs. 1: the whole batch at once."),
    Field("num_steps", 160_000, whole(1), "Optimizer steps of the whole run."),
    Field("average_decay", 0.0, RATE,
        "Decay of a moving average of weights and running statistics (0.999 to "
        "0.9999 are usual). The average is what is evaluated, saved for use and "
        "loaded. 0: no average is kept."),
    Field("log_every", 50, whole(1),
        "Steps between two lines of metrics.", is_resumable=True),
    Field("eval_every", 8_000, whole(1),
        "Steps between two evaluations on the validation split. The end of the run "
        "is evaluated, too.", is_resumable=True),
    Field("checkpoint_every", 2_000, whole(1),
        "Steps between two checkpoints. Each evaluation and the end save one, too.",
        is_resumable=True),
    Field("keep_checkpoints", 2, whole(1),
        "Number of latest checkpoints that are kept.", is_resumable=True),
    Field("keep_best", 1, whole(),
        "Number of checkpoints with the best mIoU (or top-1) that are kept besides.",
        is_resumable=True),
    Field("max_broken_steps", 0, whole(),
        "Steps of a run whose loss, gradient or update may be nan or infinite. They "
        "change no weight, and broken_steps.jsonl lists their images. One more ends "
        "the run.", is_resumable=True),
    Field("profile_steps", (0, 0), _STEPS,
        "First and last step of a trace in profile/ (TensorBoard, Perfetto). (0, 0): "
        "none.", is_resumable=True),
    Field("debug", False, flag(),
        "Whether to stop with a traceback where the first nan arises. Several times "
        "slower.", is_resumable=True),
    Field("wandb_project", "", text(),
        "Project of Weights & Biases that gets the metrics, too. Empty: none.",
        is_resumable=True),
    Field("mesh.fsdp", 1, whole(1),
        "Devices that share one copy of parameters and moments; it divides the "
        "number of devices. 1: each device holds them whole.", is_resumable=True),
    Field("mesh.fsdp_min_size", 16_384, whole(),
        "Arrays of fewer values are whole on each device all the same.",
        is_resumable=True),
)
# fmt: on
