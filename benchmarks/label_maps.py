"""Time of label maps at full size from logits at 1/8 of it, 150 classes and 19.

Ours (`segnext_jax.ops.upsampled.upsampled_labels`) and two that enlarge the logits
first: with jnp.argmax, and with the two plain reductions that give the same.

    python benchmarks/label_maps.py --rounds=11
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.benchmark.programs import take_turns
from segnext_jax.cli.command import keep_freed_memory
from segnext_jax.evaluation.scoring import best_labels
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.ops.upsampled import upsampled_labels

FACTOR = 8
CASES = ((1, 64, 150), (2, 64, 150), (8, 64, 19))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    keep_freed_memory()
    print("| batch, size, classes | ours ms | argmax | two reductions | pixels alike |")
    print("|---|---|---|---|---|")
    for batch, side, num_classes in CASES:
        shape = batch, side, side, num_classes
        logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        size = FACTOR * side, FACTOR * side
        forms = {
            "ours": functools.partial(upsampled_labels, factor=FACTOR),
            "argmax": lambda x, size=size: jnp.argmax(
                resize_bilinear(x, size), axis=-1
            ).astype(jnp.uint8),
            "two reductions": lambda x, size=size: best_labels(
                resize_bilinear(x, size)
            ),
        }
        compiled = {
            name: jax.jit(form).lower(logits).compile() for name, form in forms.items()
        }
        logits = jnp.asarray(logits)
        programs = {
            name: functools.partial(_wait, program, logits)
            for name, program in compiled.items()
        }
        maps = [np.asarray(program()) for program in programs.values()]
        alike = min(float(np.mean(other == maps[0])) for other in maps[1:])
        times = take_turns(programs, options.rounds)
        cells = [f"{times[name].median_ms:.1f}" for name in forms]
        name = f"{batch}, {size[0]}x{size[1]}, {num_classes}"
        print(f"| {name} | {' | '.join(cells)} | {alike:.6f} |", flush=True)


def _wait(program, logits):
    return jax.block_until_ready(program(logits))


if __name__ == "__main__":
    main()
