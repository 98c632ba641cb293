"""What a configuration says of optimization: schedule, parameter groups, optimizer."""

import optax
from ml_collections import ConfigDict

from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training.schedule import Schedule, poly_with_warmup


def make_schedule(config: ConfigDict) -> Schedule:
    """Return the learning rate of the encoder as a function of the step."""
    options = config.optimizer
    return poly_with_warmup(
        learning_rate=options.learning_rate,
        num_steps=config.num_steps,
        power=options.power,
        min_learning_rate=options.min_learning_rate,
        warmup_steps=options.warmup_steps,
        warmup_ratio=options.warmup_ratio,
    )


def make_rules(config: ConfigDict) -> tuple[optimizer_lib.Rule, ...]:
    """Return the parameter groups."""
    return optimizer_lib.official_rules(
        config.optimizer.head_lr_multiplier, config.optimizer.norm_decay_multiplier
    )


def make_optimizer(
    config: ConfigDict, schedule: Schedule
) -> optax.GradientTransformation:
    """Return AdamW with the official groups."""
    options = config.optimizer
    return optimizer_lib.adamw(
        schedule,
        rules=make_rules(config),
        beta1=options.beta1,
        beta2=options.beta2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
    )
