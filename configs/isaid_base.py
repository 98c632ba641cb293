"""SegNeXt-B on iSAID: mIoU 69.9 (paper).

    segnext-jax prepare isaid
    segnext-jax train --config=isaid_base

8 GPUs, batch 16. The number holds on patches cut as JSeg cuts them: 800 pixels, 200
shared. Source: ``project/_base_/datasets/isaid_869x869.py`` of JSeg. From an ImageNet
encoder: add ``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.data.name = "isaid"
    config.data.crop_size = (896, 896)
    config.data.base_scale = (896, 896)

    config.evaluation.scale = (896, 896)
    return config
