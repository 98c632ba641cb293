"""SegNeXt-S on ADE20K: mIoU 44.3, multi-scale with flip 45.8 (paper).

    segnext-jax prepare ade20k
    segnext-jax train --config=ade20k_small

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-small``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.model.variant = "small"
    return config
