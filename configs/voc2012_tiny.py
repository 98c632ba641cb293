"""SegNeXt-T on Pascal VOC 2012, trainaug: the first half of the run.

    segnext-jax prepare voc2012
    segnext-jax train --config=voc2012_tiny

8 GPUs, batch 16. Then voc2012_finetune_tiny.py; mIoU 82.7 on the test server after both
(paper). The paper gives no number on val. From an ImageNet encoder: add
``--config.init_from=mscan-tiny``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "voc2012_base.py")
    config.model.variant = "tiny"
    return config
