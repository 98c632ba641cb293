"""Fields of evaluation, which is also how predictions see an image."""

import functools

from segnext_jax.config.fields.field import EVALUATION, PREDICTION, SEGMENTATION, Field
from segnext_jax.config.kinds import (
    POSITIVE,
    SIZE,
    flag,
    number,
    one_of,
    pair,
    several,
    where,
    whole,
)

_SCALE = where(
    pair(whole(), ""),
    lambda value: value == (0, 0) or min(value) > 0,
    "two whole numbers of pixels, each at least 1, or (0, 0)",
)
_RATIOS = where(several(POSITIVE, ""), bool, "one or more numbers greater than 0")
_any = functools.partial(Field, used_by=EVALUATION, is_resumable=True)
_view = functools.partial(
    Field, used_by=PREDICTION, is_resumable=True, only=SEGMENTATION
)
_metric = functools.partial(_any, only=SEGMENTATION)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    _any("evaluation.batch_size", 8, whole(1),
        "Images per step, over all devices, of equal size; the last batch is filled "
        "up.", changes_numbers=False),
    Field("evaluation.at_start", False, flag(),
        "Whether a run evaluates the starting weights, too.", is_resumable=True),
    _view("evaluation.scale", (2048, 512), _SCALE,
        "(long side, short side) that an image is fitted into, in pixels. (0, 0): "
        "its native size."),
    _view("evaluation.ratios", (1.0,), _RATIOS,
        "Factors on that size; the probabilities are averaged over them. The paper's "
        "multi-scale: (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) with flip."),
    _view("evaluation.flip", False, flag(),
        "Whether each image is also seen mirrored."),
    _view("evaluation.size_multiple", 32, whole(1, 4096),
        "Both sides of the network's input are multiples of this, in pixels "
        "(Cityscapes: 1)."),
    _view("evaluation.alignment", "resize", one_of("resize", "pad"),
        "How they become so: the image is stretched (resize, official), or padded "
        "with the mean colour and the logits cut off (pad, mmsegmentation 1.x)."),
    _view("evaluation.mode", "whole", one_of("whole", "slide"),
        "The whole image at once, or overlapping windows of it (slide), where the "
        "logits of windows are averaged."),
    _view("evaluation.window", (1024, 1024), SIZE,
        "(height, width) of windows, in pixels.",
        source="The official Cityscapes config."),
    _view("evaluation.stride", (768, 768), SIZE,
        "(vertical, horizontal) distance from one window to the next, in pixels.",
        source="The official Cityscapes config."),
    _view("evaluation.tile_mebibytes", 8, whole(1),
        "Scores of one tile of the original images on one device, in MiB. It bounds "
        "memory and changes no result. 8 fits the cache of a CPU; 64 serves a GPU "
        "better.", changes_numbers=False),
    _metric("evaluation.max_images", 0, whole(),
        "Validation images that are evaluated, evenly from the whole split. 0: all."),
    _metric("evaluation.num_bases", 1, whole(1, 1000),
        "Draws of the fixed NMF bases, by model.nmf_eval_seed and the seeds after "
        "it, that segnext-jax evaluate takes one after the other, to report the "
        "spread.", changes_numbers=False),
    _metric("evaluation.boundary_iou", False, flag(),
        "Whether to report boundary IoU (Cheng et al., CVPR 2021)."),
    _metric("evaluation.boundary_ratio", 0.02, number(above=0, below=1),
        "Width of boundaries as a share of the image's diagonal.",
        source="Cheng et al., CVPR 2021."),
    Field("evaluation.num_overlays", 4, whole(),
        "Validation images, evenly from the whole split, that each evaluation of a "
        "training draws with their prediction.", only=SEGMENTATION, is_resumable=True),
)
# fmt: on
