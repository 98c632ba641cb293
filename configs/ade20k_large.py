"""SegNeXt-L on ADE20K: mIoU 51.0, multi-scale with flip 52.1 (paper).

    segnext-jax prepare ade20k
    segnext-jax train --config=ade20k_large

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.model.variant = "large"
    return config
