"""What a configuration says of training: schedule, groups, optimizer, step."""

import flax.linen as nn
import jax
import optax
from ml_collections import ConfigDict

from segnext_jax.models.segnext import SegNeXt
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training.objective import Objective
from segnext_jax.training.schedule import Schedule, cosine_with_warmup, poly_with_warmup
from segnext_jax.training.step import StepFn, make_train_step
from segnext_jax.training.tasks import classification_step


def make_schedule(config: ConfigDict) -> Schedule:
    """Return the learning rate of the encoder as a function of the step."""
    options = config.optimizer
    common = {
        "learning_rate": options.learning_rate,
        "num_steps": config.num_steps,
        "min_learning_rate": options.min_learning_rate,
        "warmup_steps": options.warmup_steps,
        "warmup_ratio": options.warmup_ratio,
    }
    if options.schedule == "cosine":
        return cosine_with_warmup(cooldown_steps=options.cooldown_steps, **common)
    return poly_with_warmup(power=options.power, **common)


def make_rules(config: ConfigDict) -> tuple[optimizer_lib.Rule, ...]:
    """Return the parameter groups."""
    if config.task == "classification":
        return optimizer_lib.pretraining_rules(config.model.frozen_stages)
    return optimizer_lib.official_rules(
        config.optimizer.head_lr_multiplier,
        config.optimizer.norm_decay_multiplier,
        num_frozen_stages=config.model.frozen_stages,
        layer_decay=config.optimizer.layer_decay,
        depths=SegNeXt.from_config(config.model, num_classes=1).variant.depths,
    )


def make_optimizer(
    config: ConfigDict, schedule: Schedule
) -> optax.GradientTransformation:
    """Return AdamW with these groups."""
    options = config.optimizer
    return optimizer_lib.adamw(
        schedule,
        rules=make_rules(config),
        beta1=options.beta1,
        beta2=options.beta2,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
        max_gradient_norm=options.max_gradient_norm,
        momentum_dtype=options.momentum_dtype,
    )


def make_step(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    ignore_label: int,
    params_in_use: jax.sharding.Sharding | None = None,
) -> StepFn:
    """Return the train step; see `segnext_jax.training.step.make_train_step`."""
    return make_train_step(
        model,
        optimizer,
        rules=make_rules(config),
        objective=Objective.from_config(config.loss, ignore_label),
        seed=config.seed,
        mean=config.data.mean,
        std=config.data.std,
        use_photometric=config.data.photometric,
        grey_probability=config.data.grey_probability,
        accumulate_steps=config.accumulate_steps,
        average_decay=config.average_decay,
        params_in_use=params_in_use,
    )


def make_classification_step(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    num_classes: int,
    params_in_use: jax.sharding.Sharding | None = None,
) -> StepFn:
    """Return the train step of a classifier; see `classification_step`."""
    options = config.classification
    return classification_step.make_classification_step(
        model,
        optimizer,
        rules=make_rules(config),
        num_classes=num_classes,
        label_smoothing=config.loss.label_smoothing,
        mixup_alpha=options.mixup_alpha,
        cutmix_alpha=options.cutmix_alpha,
        switch_probability=options.switch_probability,
        mix_group_size=options.mix_group_size,
        erase_probability=options.erase_probability,
        seed=config.seed,
        mean=config.data.mean,
        std=config.data.std,
        accumulate_steps=config.accumulate_steps,
        average_decay=config.average_decay,
        params_in_use=params_in_use,
    )
