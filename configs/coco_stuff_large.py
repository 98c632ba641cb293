"""SegNeXt-L on COCO-Stuff: mIoU 46.5, multi-scale with flip 47.2 (paper).

    python data/coco_stuff/prepare.py
    python -m segnext_jax.main --config=configs/coco_stuff_large.py

8 GPUs, batch 16. From an ImageNet encoder: add ``--config.init_from=mscan-large``.
"""

from segnext_jax.config import start_from


def get_config():
    """Return the configuration."""
    config = start_from(__file__, "coco_stuff_base.py")
    config.model.variant = "large"
    return config
