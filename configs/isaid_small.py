"""SegNeXt-S on iSAID: mIoU 68.8 (paper).

    segnext-jax prepare isaid
    segnext-jax train --config=isaid_small

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-small``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "isaid_base.py")
    config.model.variant = "small"
    return config
