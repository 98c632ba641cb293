"""SegNeXt-L on ADE20K: mIoU 51.0, multi-scale with flip 52.1 (paper).

    python data/ade20k/prepare.py
    python -m segnext_jax.main --config=configs/ade20k_large.py

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.model.variant = "large"
    return config
