"""SegNeXt-L on Cityscapes: mIoU 83.2, multi-scale with flip 83.9 (paper).

    segnext-jax prepare cityscapes
    segnext-jax train --config=cityscapes_large

8 GPUs, batch 8. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "cityscapes_base.py")
    config.model.variant = "large"
    return config
