"""SegNeXt-L on iSAID: mIoU 70.3 (paper).

    segnext-jax prepare isaid
    segnext-jax train --config=isaid_large

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "isaid_base.py")
    config.model.variant = "large"
    return config
