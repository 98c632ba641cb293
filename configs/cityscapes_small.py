"""SegNeXt-S on Cityscapes: mIoU 81.3, multi-scale with flip 82.7 (paper).

    segnext-jax prepare cityscapes
    segnext-jax train --config=cityscapes_small

8 GPUs, batch 8. From an ImageNet encoder: add ``--config.init_from=mscan-small``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "cityscapes_base.py")
    config.model.variant = "small"
    return config
