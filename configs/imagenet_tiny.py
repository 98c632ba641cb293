"""MSCAN-T, the encoder, on ImageNet-1K: top-1 75.9 (paper, table 3).

    segnext-jax prepare imagenet --raw_dir=FOLDER
    segnext-jax train --config=imagenet_tiny

8 GPUs, 128 images each. 300 epochs of 1251 steps and 10 at the floor of the learning
rate: the recipe of VAN, which the encoders follow; their own was not published. Other
photographs in a folder per class: --config.data.name=folder and
--config.data.folder=FOLDER. A segmentation starts from the result with
--config.init_from=runs/imagenet_tiny.
"""

from segnext_jax.config import base_config

# 1,281,167 images over batches of 1024, the incomplete one left out.
STEPS_PER_EPOCH = 1_251


def get_config():
    """Return the configuration."""
    config = base_config()
    config.task = "classification"
    config.batch_size = 1_024
    config.num_steps = 310 * STEPS_PER_EPOCH
    config.eval_every = 5 * STEPS_PER_EPOCH
    config.checkpoint_every = STEPS_PER_EPOCH

    config.data.name = "imagenet"
    config.data.crop_size = (224, 224)
    # timm's default, which VAN's models keep; segmentation has ImageNet's own. To test
    # published weights, whose mean and deviation nobody states, try both.
    config.data.mean = (127.5, 127.5, 127.5)
    config.data.std = (127.5, 127.5, 127.5)
    config.data.num_workers = 16

    config.model.variant = "tiny"

    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_steps = 5 * STEPS_PER_EPOCH
    config.optimizer.warmup_ratio = 1e-3
    config.optimizer.cooldown_steps = 10 * STEPS_PER_EPOCH
    config.optimizer.min_learning_rate = 1e-6

    config.loss.label_smoothing = 0.1

    config.evaluation.batch_size = 512
    return config
