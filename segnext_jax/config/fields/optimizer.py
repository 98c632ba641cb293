"""Fields of the optimizer, its schedule and the loss."""

import functools

from segnext_jax.config.fields.field import SEGMENTATION, Field
from segnext_jax.config.kinds import (
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SHARE,
    one_of,
    optional,
    several,
    where,
    whole,
)

_loss = functools.partial(Field, only=SEGMENTATION)
_WEIGHTS = optional(several(NOT_NEGATIVE, "factors of at least 0"))
_GAMMA = where(
    NOT_NEGATIVE, lambda value: value == 0 or value >= 1, "0 or a number of at least 1"
)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    Field("optimizer.schedule", "poly", one_of("poly", "cosine"),
        "Decay of the learning rate: poly, which the warm-up multiplies (official), "
        "or cosine, which follows the warm-up (timm)."),
    Field("optimizer.learning_rate", 6e-5, POSITIVE,
        "Highest learning rate of the encoder."),
    Field("optimizer.scale_learning_rate", "none", one_of("none", "linear", "sqrt"),
        "Factor on all learning rates: batch_size over reference_batch_size (linear), "
        "or its square root (sqrt). none: 1.",
        source="Linear: Goyal et al. 2017; sqrt, for Adam: Malladi et al. 2022."),
    Field("optimizer.reference_batch_size", None, optional(whole(1)),
        "Batch size that learning_rate is for. None: 16, in pre-training 1,024; the "
        "configs of Cityscapes and shapes are for 8.",
        source="The paper: 16; VAN's recipe for ImageNet: 1,024."),
    Field("optimizer.beta1", 0.9, RATE, "AdamW's decay of the mean of gradients."),
    Field("optimizer.beta2", 0.999, RATE,
        "AdamW's decay of the mean of squared gradients."),
    Field("optimizer.epsilon", 1e-8, POSITIVE, "AdamW's addition to the denominator."),
    Field("optimizer.weight_decay", 0.01, NOT_NEGATIVE,
        "AdamW's weight decay; it is multiplied by the learning rate."),
    _loss("optimizer.head_lr_multiplier", 10.0, POSITIVE,
        "Factor on the learning rate of the decode head (paramwise_cfg: head)."),
    _loss("optimizer.norm_decay_multiplier", 0.0, NOT_NEGATIVE,
        "Factor on the weight decay of the encoder's norms (paramwise_cfg: norm)."),
    _loss("optimizer.layer_decay", 1.0,
        where(SHARE, bool, "a number greater than 0 and at most 1"),
        "Factor on the learning rate from one layer of the encoder to the one before "
        "it (BEiT, ConvNeXt: 0.65 to 0.9). 1: none."),
    Field("optimizer.max_gradient_norm", 0.0, NOT_NEGATIVE,
        "Euclidean norm that the gradient is scaled down to. 0: it is not "
        "(official)."),
    Field("optimizer.momentum_dtype", "float32", one_of("float32", "bfloat16"),
        "Type in which the mean of gradients is kept."),
    Field("optimizer.power", 1.0, NOT_NEGATIVE,
        "Exponent of the polynomial decay.", only=("optimizer.schedule", "poly")),
    Field("optimizer.min_learning_rate", 0.0, NOT_NEGATIVE,
        "Lowest learning rate at the end of the decay."),
    Field("optimizer.cooldown_steps", 0, whole(),
        "Last steps of the run that a cosine spends at min_learning_rate.",
        only=("optimizer.schedule", "cosine")),
    Field("optimizer.warmup_steps", 1_500, whole(),
        "Steps over which the learning rate rises linearly."),
    Field("optimizer.warmup_ratio", 1e-6, SHARE,
        "Factor on the learning rate with which the warm-up begins."),
    _loss("loss.weights.cross_entropy", 1.0, NOT_NEGATIVE,
        "Factor of the cross-entropy. The terms are added up; 0 leaves one out."),
    _loss("loss.weights.focal", 0.0, NOT_NEGATIVE, "Factor of the focal loss."),
    _loss("loss.weights.dice", 0.0, NOT_NEGATIVE, "Factor of the Dice loss."),
    _loss("loss.weights.lovasz", 0.0, NOT_NEGATIVE, "Factor of the Lovasz softmax."),
    _loss("loss.average", "all", one_of("all", "valid"),
        "Cross-entropy and focal: mean over all pixels (official), or over the valid "
        "(labelled) ones."),
    _loss("loss.class_weights", None, _WEIGHTS,
        "Cross-entropy and focal: one factor for each class. None: 1."),
    Field("loss.label_smoothing", 0.0, RATE,
        "Cross-entropy: share of the label that is spread over all classes."),
    _loss("loss.ohem_min_kept", 0, whole(),
        "Cross-entropy: hard pixels that are kept per image, on the mean over the "
        "batch (OHEM; mmsegmentation: 100,000). 0: all pixels count."),
    _loss("loss.ohem_threshold", 0.7, SHARE,
        "Probability below which a pixel is hard. 0: the ohem_min_kept hardest "
        "alone."),
    _loss("loss.focal_gamma", 2.0, _GAMMA,
        "Focal loss: exponent of 1 - p.", source="The focal loss's paper."),
    _loss("loss.dice_smooth", 1.0, POSITIVE,
        "Dice loss: number added to both sides of the fraction.",
        source="mmsegmentation."),
)
# fmt: on
