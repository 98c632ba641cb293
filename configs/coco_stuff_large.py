"""SegNeXt-L on COCO-Stuff: mIoU 46.5, multi-scale with flip 47.2 (paper).

    segnext-jax prepare coco_stuff
    segnext-jax train --config=coco_stuff_large

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "coco_stuff_base.py")
    config.model.variant = "large"
    return config
