"""SegNeXt-T on Cityscapes: mIoU 79.8, multi-scale with flip 81.4 (paper).

    segnext-jax prepare cityscapes
    segnext-jax train --config=cityscapes_tiny

8 GPUs, batch 8. From an ImageNet encoder: add ``--config.init_from=mscan-tiny``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "cityscapes_base.py")
    config.model.variant = "tiny"
    return config
