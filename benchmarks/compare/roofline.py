"""What this machine reaches when nothing else is asked of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from segnext_jax.benchmark.programs import take_turns


class Peaks(NamedTuple):
    """Operations a second of a product, and bytes a second, read and written."""

    flops: float
    bandwidth: float

    def bound_ms(self, flops: float, num_bytes: float) -> float:
        """Return the milliseconds that no program with these counts stays below."""
        return 1e3 * max(flops / self.flops, num_bytes / self.bandwidth)

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"Peaks measured in this run: {self.flops / 1e9:.0f} GFLOP/s (matrix "
            f"product), {self.bandwidth / 1e9:.1f} GB/s (reading and writing)."
        )


def measure_peaks(dtype: Any) -> Peaks:
    """Measure a large product of matrices, and a copy where nothing fits a cache."""
    is_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if is_cpu else (8192, 2**29)
    matrix = jnp.ones((side, side), dtype)
    box = [jnp.ones(length, jnp.float32)]
    product = jax.jit(jnp.matmul)
    # In place, or the kernel's handing out of pages would be measured.
    increment = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> None:
        box[0] = increment(box[0]).block_until_ready()

    times = take_turns(
        {"product": lambda: product(matrix, matrix).block_until_ready(), "copy": copy},
        rounds=7,
    )
    return Peaks(
        2 * side**3 / min(times["product"].wall),
        2 * box[0].nbytes / min(times["copy"].wall),
    )
