"""SegNeXt-T on CamVid (11 classes, 367 images of 480x360), the paper's recipe.

    segnext-jax prepare camvid
    segnext-jax train --config=camvid_tiny

One GPU; docs/recipes.md has the overrides for a short run on a CPU. The paper reports
no number for this data set.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.batch_size = 16
    config.num_steps = 20_000
    config.eval_every = 1_000
    config.checkpoint_every = 500

    config.data.name = "camvid"
    config.data.crop_size = (352, 352)
    config.data.base_scale = (480, 360)

    config.model.variant = "tiny"

    config.optimizer.warmup_steps = 1_000

    config.evaluation.scale = (0, 0)
    return config
