"""SegNeXt-L on Pascal Context: mIoU 58.7, multi-scale with flip 60.3 (paper).

    segnext-jax prepare pascal_context_59
    segnext-jax train --config=pascal_context_large

8 GPUs, batch 16. 59 classes; with background: ``--config.data.name=pascal_context_60``.
From an ImageNet encoder: add ``--config.init_from=mscan-large``. From ADE20K
(``--config.init_from=runs/ade20k_large``): 59.2 and 60.9.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "pascal_context_base.py")
    config.model.variant = "large"
    return config
