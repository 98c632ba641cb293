"""SegNeXt-T on Pascal VOC 2012: mIoU 82.7 on the test server (paper).

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_tiny
    segnext-jax train --config=voc2012_finetune_tiny

8 GPUs, batch 16. Goes on from the weights of ``runs/voc2012_tiny`` with trainval, which
holds val: the mIoU that this run reports is of training images. The paper does not give
the learning rate of the fine-tuning; it is the recipe's here.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "voc2012_tiny.py")
    config.data.train_split = "trainval"
    config.init_from = "runs/voc2012_tiny"
    return config
