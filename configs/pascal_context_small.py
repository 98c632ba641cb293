"""SegNeXt-S on Pascal Context: mIoU 54.2, multi-scale with flip 56.1 (paper).

    segnext-jax prepare pascal_context_59
    segnext-jax train --config=pascal_context_small

8 GPUs, batch 16. 59 classes; with background: ``--config.data.name=pascal_context_60``.
From an ImageNet encoder: add ``--config.init_from=mscan-small``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "pascal_context_base.py")
    config.model.variant = "small"
    return config
