"""SegNeXt-B on Pascal VOC 2012, trainaug: the first half of the run.

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_base

8 GPUs, batch 16. Then voc2012_finetune_base.py; mIoU 87.5 on the test server after both
(paper). The paper gives no number on val. From an ImageNet encoder: add
``--config.init_from=mscan-base``. Scale, crop and evaluation are those of ADE20K, as
in mmseg's ``_base_/datasets/pascal_voc12_aug.py``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.num_steps = 80_000

    config.data.name = "voc2012"
    config.data.train_split = "trainaug"
    return config
