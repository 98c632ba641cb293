"""SegNeXt-T on ADE20K: mIoU 41.1, multi-scale with flip 42.2 (paper).

    python data/ade20k/prepare.py
    python -m segnext_jax.main --config=configs/ade20k_tiny.py

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-tiny``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.model.variant = "tiny"
    return config
