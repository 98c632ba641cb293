"""Everything that a training step changes."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from segnext_jax.training.optimizer import Optimizer


class TrainState(flax.struct.PyTreeNode):
    """The state between two steps.

    Attributes:
      step: Number of finished optimizer steps.
      params: Parameters, float32.
      batch_stats: Running statistics of the BatchNorms.
      optimizer_state: Moments of AdamW, of the parameters that are trained.
      average: Moving average of ``params`` and ``batch_stats``, a tree like
        `variables`; None: none is kept.
    """

    step: Any
    params: Any
    batch_stats: Any
    optimizer_state: Any
    average: Any = None

    def variables(self) -> dict[str, Any]:
        """Return what the model is trained with."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def best_variables(self) -> dict[str, Any]:
        """Return what the model is evaluated and used with: the average, if kept."""
        return self.variables() if self.average is None else self.average

    def to_checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (model, rest): what is needed to use it, and to go on training."""
        rest = {"step": self.step, "moments": self.optimizer_state}
        if self.average is not None:
            rest["variables"] = self.variables()
        return self.best_variables(), rest

    @classmethod
    def from_checkpoint(
        cls, model: Mapping[str, Any], rest: Mapping[str, Any]
    ) -> "TrainState":
        """Return the state that `to_checkpoint` took apart."""
        variables = rest.get("variables", model)
        return cls(
            step=rest["step"],
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            optimizer_state=rest["moments"],
            average=model if "variables" in rest else None,
        )


def create(
    variables: Mapping[str, Any],
    optimizer: Optimizer,
    *,
    has_average: bool = False,
) -> TrainState:
    """Return the state before the first step.

    Args:
      variables: Initial ``params`` and ``batch_stats``.
      optimizer: Gives its own initial state.
      has_average: Whether a moving average is kept; it begins with ``variables``.
    """
    params = variables["params"]
    # One program, where each shape of a moment would be one.
    init = jax.jit(optimizer.init)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        optimizer_state=init(params),
    )
    if has_average:
        # Copies, because a step donates the memory of each array of its input, once.
        copies = jax.tree.map(
            lambda leaf: jnp.array(leaf, copy=True), state.variables()
        )
        state = state.replace(average=copies)
    return state
