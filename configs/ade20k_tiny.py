"""SegNeXt-T on ADE20K: mIoU 41.1, multi-scale with flip 42.2 (paper).

    segnext-jax prepare ade20k
    segnext-jax train --config=ade20k_tiny

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-tiny``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.model.variant = "tiny"
    return config
