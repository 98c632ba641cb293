"""Time of AdamW's update of a donated state, ours and optax's.

    python benchmarks/optimizer_copies.py [--variant=base]

The update of all parameters of a network as the train step has it: nothing is kept of a
step that is not finite, and the norm of the update is returned. `copies`: in the
compiled program; of arrays that are read after others have been written in their place.
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from segnext_jax.benchmark.programs import take_turns
from segnext_jax.config import base_config
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.training.optimizer import Optimizer, keep


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    config = base_config()
    config.model.variant = options.variant
    params = initialize(SegNeXt.from_config(config.model, 150), seed=0)["params"]
    params = jax.tree.map(jnp.asarray, params)
    gradients = jax.tree.map(lambda p: 1e-3 * jnp.cos(p), params)
    optimizer = Optimizer.from_config(config)
    ours, schedule = optimizer.transformation, optimizer.schedule
    optimizers = {"ours": ours, "optax.adamw": optax.adamw(schedule, weight_decay=0.01)}

    def update(params: Any, state: Any, gradients: Any, *, name: str) -> tuple:
        is_finite = jnp.isfinite(optax.global_norm(gradients))
        if name == "ours":
            updates, new = ours.update(gradients, state, params, is_finite=is_finite)
            norm = optax.global_norm(updates)
            is_finite &= jnp.isfinite(norm)
        else:
            updates, new = optimizers[name].update(gradients, state, params)
            norm = optax.global_norm(updates)
            new = keep(is_finite, new, state)
        moved = keep(is_finite, optax.apply_updates(params, updates), params)
        return moved, new, norm

    programs, copies = {}, {}
    for name, optimizer in optimizers.items():
        box = [jax.tree.map(jnp.array, params), optimizer.init(params)]
        function = jax.jit(functools.partial(update, name=name), donate_argnums=(0, 1))
        compiled = function.lower(*box, gradients).compile()
        copies[name] = compiled.as_text().count(" copy(")

        def run(box: list = box, compiled: Any = compiled) -> None:
            box[0], box[1], _ = jax.block_until_ready(compiled(*box, gradients))

        programs[name] = run
    times = take_turns(programs, options.rounds)
    print("| update | median ms | min ms | copies |\n|---|---|---|---|")
    for name in programs:
        numbers = f"{times[name].median_ms:.1f} | {1e3 * min(times[name].wall):.1f}"
        print(f"| {name} | {numbers} | {copies[name]} |")


if __name__ == "__main__":
    main()
