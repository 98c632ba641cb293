"""SegNeXt-B on ADE20K: mIoU 48.5, multi-scale with flip 49.9 (paper).

    segnext-jax prepare ade20k
    segnext-jax train --config=ade20k_base

8 GPUs, batch 16. The base configuration is this run. From an ImageNet encoder: add
``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    return base_config()
