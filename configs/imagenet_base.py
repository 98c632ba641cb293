"""MSCAN-B, the encoder, on ImageNet-1K: top-1 83.0 (paper, table 3).

    segnext-jax prepare imagenet --raw_dir=FOLDER
    segnext-jax train --config=imagenet_base

8 GPUs, 128 images each. As configs/imagenet_tiny.py; the drop path rate is that of
VAN-B2, the network of this size in the recipe: that of the encoder was not published.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "imagenet_tiny.py")
    config.model.variant = "base"
    config.model.drop_path_rate = 0.1
    return config
