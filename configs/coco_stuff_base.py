"""SegNeXt-B on COCO-Stuff: mIoU 45.8, multi-scale with flip 46.3 (paper).

    segnext-jax prepare coco_stuff
    segnext-jax train --config=coco_stuff_base

8 GPUs, batch 16. 171 classes; scale, crop and evaluation are those of ADE20K. From an
ImageNet encoder: add ``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.num_steps = 80_000

    config.data.name = "coco_stuff"
    return config
