"""SegNeXt-T on COCO-Stuff: mIoU 38.7, multi-scale with flip 39.1 (paper).

    segnext-jax prepare coco_stuff
    segnext-jax train --config=coco_stuff_tiny

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-tiny``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "coco_stuff_base.py")
    config.model.variant = "tiny"
    return config
