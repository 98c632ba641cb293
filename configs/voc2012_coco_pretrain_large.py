"""SegNeXt-L on COCO for 600,000 steps, before voc2012_coco_finetune_large.py.

    segnext-jax prepare coco_stuff
    segnext-jax train --config=voc2012_coco_pretrain_large

8 GPUs, batch 16. The paper names COCO, its crop, batch and steps (appendix, table 1),
not the labels: here they are those of COCO-Stuff, which hold the classes of Pascal VOC.
From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "coco_stuff_large.py")
    config.num_steps = 600_000
    return config
