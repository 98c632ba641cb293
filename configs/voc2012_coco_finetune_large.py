"""SegNeXt-L on Pascal VOC 2012: mIoU 90.6 on the test server, with COCO (paper).

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_coco_pretrain_large
    segnext-jax train --config=voc2012_coco_finetune_large

8 GPUs, batch 16. Goes on from the weights of ``runs/voc2012_coco_pretrain_large``,
whose head is drawn anew, with trainval, which holds val: the mIoU that this run reports
is of training images.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "voc2012_finetune_large.py")
    config.num_steps = 40_000
    config.init_from = "runs/voc2012_coco_pretrain_large"
    return config
