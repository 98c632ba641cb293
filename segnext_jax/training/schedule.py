"""The learning rate as a closed form of the step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

# Step, an int or Int[Array, ""], to learning rate.
Schedule = Callable[[Any], Float[Array, ""]]

# Images of a step in the recipes of the tasks (`segnext_jax.config.fields.optimizer`).
_BATCH_SIZES = {"segmentation": 16, "classification": 1_024}


def poly_with_warmup(
    *,
    learning_rate: float,
    num_steps: int,
    power: float = 1.0,
    min_learning_rate: float = 0.0,
    warmup_steps: int = 1500,
    warmup_ratio: float = 1e-6,
) -> Schedule:
    """Return the polynomial decay times a linear warm-up.

    With t = step / num_steps and w = step / warmup_steps:

        decay = (learning_rate - min_learning_rate) * (1 - t)^power + min_learning_rate
        warmup = 1 - (1 - w) (1 - warmup_ratio)  while w < 1, else 1
        rate = decay * warmup

    The warm-up multiplies the decaying value; it does not come before it.

    Source: ``PolyLrUpdaterHook`` of mmcv 1.6.0 with ``warmup='linear'``, and the
    ``lr_config`` of the official configs of SegNeXt@c87bcae.
    """

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        step = jnp.asarray(step).astype(jnp.result_type(float))
        remaining = 1 - jnp.minimum(step / num_steps, 1)
        span = learning_rate - min_learning_rate
        decay = span * remaining**power + min_learning_rate
        progress = jnp.minimum(step / max(warmup_steps, 1), 1)
        if step.dtype == jnp.float64:
            warmup = 1 - (1 - progress) * (1 - warmup_ratio)
        else:
            # The same value without the cancellation in float32 in the first steps.
            warmup = progress + warmup_ratio * (1 - progress)
        return decay * warmup if warmup_steps > 0 else decay

    return schedule


def cosine_with_warmup(
    *,
    learning_rate: float,
    num_steps: int,
    min_learning_rate: float = 0.0,
    warmup_steps: int = 0,
    warmup_ratio: float = 0.0,
    cooldown_steps: int = 0,
) -> Schedule:
    """Return half a cosine, its beginning replaced by a linear warm-up.

    With t = step / (num_steps - cooldown_steps) and w = step / warmup_steps:

        rate = learning_rate (warmup_ratio + (1 - warmup_ratio) w)          while w < 1
        rate = min_learning_rate
               + (learning_rate - min_learning_rate) (1 + cos(pi t)) / 2    while t < 1
        rate = min_learning_rate                                         in cooldown

    The warm-up aims at ``learning_rate``; the cosine has gone down a little when it
    takes over.

    Source: ``CosineLRScheduler`` of timm 0.4.12 with ``warmup_prefix=False``.
    Differs: timm sets the rate once an epoch, to the value at its start.
    """

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        step = jnp.asarray(step).astype(jnp.result_type(float))
        progress = jnp.minimum(step / (num_steps - cooldown_steps), 1)
        # (1 + cos x) / 2, without the cancellation near its end.
        share = jnp.square(jnp.cos(jnp.pi / 2 * progress))
        share = jnp.where(progress < 1, share, 0)
        rate = min_learning_rate + (learning_rate - min_learning_rate) * share
        if not warmup_steps:
            return rate
        climb = warmup_ratio + (1 - warmup_ratio) * step / warmup_steps
        return jnp.where(step < warmup_steps, learning_rate * climb, rate)

    return schedule


def batch_size_factor(config: ConfigDict) -> tuple[float, int]:
    """Return the factor on learning rates, and the batch size for which it is 1.

    A batch of another size than the recipe's has a mean gradient with less noise or
    more; the factor makes up for that by ``config.optimizer.scale_learning_rate``.
    """
    options = config.optimizer
    reference = options.reference_batch_size or _BATCH_SIZES[config.task]
    exponent = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[options.scale_learning_rate]
    return (config.batch_size / reference) ** exponent, reference


def from_config(config: ConfigDict) -> Schedule:
    """Return the learning rate of the encoder as a function of the step."""
    options = config.optimizer
    factor, _ = batch_size_factor(config)
    common = {
        "learning_rate": factor * options.learning_rate,
        "num_steps": config.num_steps,
        "min_learning_rate": factor * options.min_learning_rate,
        "warmup_steps": options.warmup_steps,
        "warmup_ratio": options.warmup_ratio,
    }
    if options.schedule == "cosine":
        return cosine_with_warmup(cooldown_steps=options.cooldown_steps, **common)
    return poly_with_warmup(power=options.power, **common)
