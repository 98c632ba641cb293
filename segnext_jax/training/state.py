"""Everything that a training step changes."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax


class TrainState(flax.struct.PyTreeNode):
    """The state between two steps.

    Attributes:
      step: Number of finished optimizer steps.
      params: Parameters, float32.
      batch_stats: Running statistics of the BatchNorms.
      optimizer_state: Moments of AdamW.
    """

    step: Any
    params: Any
    batch_stats: Any
    optimizer_state: Any

    def variables(self) -> dict[str, Any]:
        """Return what the model is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the state before the first step.

    Args:
      variables: Initial ``params`` and ``batch_stats``.
      optimizer: Gives its own initial state.
    """
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        optimizer_state=optimizer.init(params),
    )
