"""Fields of the network."""

import functools

from segnext_jax.config.fields.field import PREDICTION, SEGMENTATION, Field
from segnext_jax.config.kinds import (
    POSITIVE,
    RATE,
    flag,
    one_of,
    optional,
    several,
    where,
    whole,
)

_SIZES = optional(several(whole(1), "four whole numbers of at least 1", length=4))
_DEPTHS = optional(several(whole(0), "four whole numbers of at least 0", length=4))
_RATIOS = optional(several(POSITIVE, "four numbers greater than 0", length=4))
_CHANNELS = optional(
    where(
        whole(1),
        lambda value: value % 32 == 0,
        "a multiple of 32 (GroupNorm has 32 groups)",
    )
)
_network = functools.partial(Field, used_by=PREDICTION)
_head = functools.partial(Field, only=SEGMENTATION, used_by=PREDICTION)

# A row of a table each: name, default, kind; meaning; what else there is to say.
# fmt: off
FIELDS = (
    _network("model.variant", "base", one_of("tiny", "small", "base", "large"),
        "Key of segnext_jax.models.VARIANTS: the sizes of encoder and decoder."),
    _network("model.embed_dims", None, _SIZES,
        "Channels of the four stages. None: those of the variant."),
    _network("model.depths", None, _DEPTHS,
        "Blocks of the four stages. None: those of the variant."),
    _network("model.mlp_ratios", None, _RATIOS,
        "Hidden channels of the MLPs over the stage's channels. None: those of the "
        "variant."),
    Field("model.drop_path_rate", None, optional(RATE),
        "Drop path rate of the last block; it rises from 0. None: that of the "
        "variant."),
    _head("model.head_channels", None, _CHANNELS,
        "Channels of the decoder. None: those of the variant."),
    _head("model.rank", None, optional(whole(1)),
        "Number of NMF bases. None: that of the variant."),
    Field("model.dropout_rate", 0.1, RATE,
        "Rate of channel dropout before the classifier (Dropout2d).",
        only=SEGMENTATION),
    Field("model.nmf_gradient", "full", one_of("full", "one_step"),
        "Gradient through all NMF steps (full, official), or through the last one "
        "(one_step, JSeg).", only=SEGMENTATION),
    Field("model.nmf_train_steps", 6, whole(1),
        "NMF steps in training.", source="ham_head.py.", only=SEGMENTATION),
    _head("model.nmf_eval_steps", 7, whole(1),
        "NMF steps at inference.", source="ham_head.py."),
    _head("model.nmf_eval_bases", "fixed", one_of("fixed", "random"),
        "Starting bases at inference: fixed (by model.nmf_eval_seed, the same for "
        "each image), or random (drawn anew for each image, as the official code "
        "does)."),
    _head("model.nmf_eval_seed", 0, whole(0, 2**32 - 1),
        "Seed of the fixed starting bases."),
    _network("model.depthwise", "auto", one_of("auto", "shifted", "grouped"),
        "Formulation of depthwise convolutions: auto (kernels of our own on "
        "NVIDIA GPUs and TPUs, shifted sums elsewhere), shifted, grouped (XLA's).",
        is_resumable=True, changes_numbers=False),
    _network("model.dtype", "float32", one_of("float32", "bfloat16"),
        "Type of activations; parameters, statistics, loss and NMF stay float32."),
    Field("model.frozen_stages", 0, whole(0, 4),
        "First stages of the encoder that are not trained and whose BatchNorms do "
        "not adapt."),
    Field("model.freeze_batch_norm", False, flag(),
        "Whether BatchNorms use and keep their running statistics in training."),
    Field("model.remat", False, flag(),
        "Whether each block is computed again in the backward pass, which saves "
        "memory and costs time.", is_resumable=True),
)
# fmt: on
