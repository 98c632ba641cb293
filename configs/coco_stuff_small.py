"""SegNeXt-S on COCO-Stuff: mIoU 42.2, multi-scale with flip 42.8 (paper).

    segnext-jax prepare coco_stuff
    segnext-jax train --config=coco_stuff_small

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-small``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "coco_stuff_base.py")
    config.model.variant = "small"
    return config
