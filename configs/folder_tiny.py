r"""SegNeXt-T on your own images, from random weights or published ones.

    segnext-jax check FOLDER
    segnext-jax train --config=folder_tiny \
        --config.data.folder=FOLDER

`segnext-jax train FOLDER` chooses what suits the set and the machine instead.

The steps, the crop of 512x512 and the learning rate of 6e-5 are for a GPU and published
weights of the encoder: --config.init_from=mscan_t.pth. From random weights, a network
learns little in so few steps; a few hundred photographs need published weights.

docs/own_data.md says what FOLDER holds. One GPU; the sizes suit photographs of about a
megapixel. data/folder/prepare.py makes a prepared set of it, which large sets on slow
disks need; its name is then config.data.name.
"""

from segnext_jax.config import base_config


def get_config():
    """Return the configuration."""
    config = base_config()
    config.num_steps = 20_000
    config.eval_every = 1_000
    config.checkpoint_every = 500

    config.data.name = "folder"
    config.data.folder = "my_images"

    config.model.variant = "tiny"

    config.optimizer.warmup_steps = 1_000
    return config
