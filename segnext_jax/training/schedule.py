"""The learning rate as a closed form of the step."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]


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
            # The same, without the cancellation that float32 feels in the first steps.
            warmup = progress + warmup_ratio * (1 - progress)
        return decay * warmup if warmup_steps > 0 else decay

    return schedule
