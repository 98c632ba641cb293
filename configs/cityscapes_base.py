"""SegNeXt-B on Cityscapes: mIoU 82.6, multi-scale with flip 83.8 (paper).

    segnext-jax prepare cityscapes
    segnext-jax train --config=cityscapes_base

8 GPUs, batch 8. Evaluation keeps the images' size and slides the crop over them. From
an ImageNet encoder: add ``--config.init_from=mscan-base``.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.batch_size = 8

    config.data.name = "cityscapes"
    config.data.crop_size = (1024, 1024)
    config.data.base_scale = (2048, 1024)

    config.evaluation.scale = (2048, 1024)
    config.evaluation.size_multiple = 1
    config.evaluation.mode = "slide"
    config.evaluation.window = (1024, 1024)
    config.evaluation.stride = (768, 768)
    return config
