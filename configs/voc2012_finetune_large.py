"""SegNeXt-L on Pascal VOC 2012, trainval, after voc2012_large.py.

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_large
    segnext-jax train --config=voc2012_finetune_large

8 GPUs, batch 16. Goes on from the weights of ``runs/voc2012_large`` with trainval,
which holds val: the mIoU that this run reports is of training images. The paper does
not give the learning rate of the fine-tuning; it is the recipe's here.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "voc2012_large.py")
    config.data.train_split = "trainval"
    config.init_from = "runs/voc2012_large"
    return config
