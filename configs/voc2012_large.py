"""SegNeXt-L on Pascal VOC 2012, trainaug: the first half of the run.

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_large

8 GPUs, batch 16. Then voc2012_finetune_large.py. The paper gives a number for L with
COCO alone: voc2012_coco_finetune_large.py. From an ImageNet encoder: add
``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "voc2012_base.py")
    config.model.variant = "large"
    return config
