"""SegNeXt-B on Pascal Context: mIoU 57.0, multi-scale with flip 59.0 (paper).

    segnext-jax prepare pascal_context_59
    segnext-jax train --config=pascal_context_base

8 GPUs, batch 16. 59 classes; the paper does not say whether it has 59 or 60. With
background: prepare and give ``--config.data.name=pascal_context_60``. Scales: mmseg's
``_base_/datasets/pascal_context_59.py``. From an ImageNet encoder: add
``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.num_steps = 80_000

    config.data.name = "pascal_context_59"
    config.data.crop_size = (480, 480)
    config.data.base_scale = (520, 520)

    config.evaluation.scale = (520, 520)
    return config
