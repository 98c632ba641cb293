"""Fields of pre-training alone: how photographs are changed, mixed and tested.

Source, unless a row names another: ``train.py`` and ``train.sh`` of the VAN repository
and the defaults of timm 0.4.12, which it uses.
"""

import functools

from segnext_jax.config.fields.field import CLASSIFICATION, EVALUATION, Field
from segnext_jax.config.kinds import FACTORS, NOT_NEGATIVE, SHARE, number, where, whole

_AREA = where(
    FACTORS,
    lambda value: value[1] <= 1,
    "two shares greater than 0 and at most 1, the smaller one first",
)
_field = functools.partial(Field, only=CLASSIFICATION)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    _field("classification.area_range", (0.08, 1.0), _AREA,
        "Share of the photograph's area that a crop shows."),
    _field("classification.aspect_range", (3 / 4, 4 / 3), FACTORS,
        "Width of a crop over its height, before it is resized (bilinear or bicubic, "
        "by chance)."),
    _field("classification.augment_operations", 2, whole(0, 100),
        "RandAugment (rand-m9-mstd0.5-inc1): operations drawn for each image. 0: "
        "none."),
    _field("classification.augment_probability", 0.5, SHARE,
        "RandAugment: probability of each drawn operation to be applied."),
    _field("classification.augment_magnitude", 9.0, number(0, 10),
        "RandAugment: mean of the magnitude, in [0, 10]."),
    _field("classification.augment_deviation", 0.5, NOT_NEGATIVE,
        "RandAugment: standard deviation of the magnitude."),
    _field("classification.colour_jitter", 0.0, NOT_NEGATIVE,
        "Brightness, contrast and saturation are then multiplied by 1 - x to 1 + x.",
        source="VAN's command line says 0.4, which timm leaves out where "
               "RandAugment is on."),
    _field("classification.mixup_alpha", 0.8, NOT_NEGATIVE,
        "Mixup draws from Beta(alpha, alpha). 0: no mixup."),
    _field("classification.cutmix_alpha", 1.0, NOT_NEGATIVE,
        "Cutmix draws from Beta(alpha, alpha). 0: no cutmix."),
    _field("classification.switch_probability", 0.5, SHARE,
        "Probability of cutmix where there are both."),
    _field("classification.mix_group_size", 128, whole(1),
        "Images of a batch that are mixed in the same way.",
        source="VAN: those of one GPU."),
    _field("classification.erase_probability", 0.25, SHARE,
        "Probability of replacing a rectangle of an image by noise."),
    _field("classification.crop_share", 0.9,
        where(SHARE, bool, "a number greater than 0 and at most 1"),
        "Evaluation: side of the central crop over the image's shorter side.",
        used_by=EVALUATION),
)
# fmt: on
