"""SegNeXt-B on ADE20K: mIoU 48.5, multi-scale with flip 49.9 (paper).

    python data/ade20k/prepare.py
    python -m segnext_jax.main --config=configs/ade20k_base.py

8 GPUs, batch 16. The base configuration is this run. From an ImageNet encoder: add
``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    return base_config()
