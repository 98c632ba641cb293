"""SegNeXt-B on ADE20K: mIoU 48.5 single-scale, 49.9 multi-scale with flip (paper).

    python data/ade20k/prepare.py
    python -m segnext_jax.main --config=configs/ade20k_base.py

8 GPUs. The base configuration is this run.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    return base_config()
