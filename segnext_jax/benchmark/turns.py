"""Run programs in turn and take their times; measure what this machine can do."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Each runs once and returns when its result is there.
Programs = Mapping[str, Callable[[], Any]]
# Turns that do not count.
WARM_UP = 2


@dataclasses.dataclass
class Times:
    """Seconds of each turn of a program.

    Attributes:
        wall: By the clock.
        processor: Of all threads of this process; says little on an accelerator.
    """

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    def to_row(self) -> dict[str, float]:
        """Return the columns of a table: medians, and what the clock varied by."""
        return {
            "median ms": 1e3 * statistics.median(self.wall),
            "min ms": 1e3 * min(self.wall),
            "spread ms": 1e3 * (max(self.wall) - min(self.wall)),
            "processor ms": 1e3 * statistics.median(self.processor),
            "rounds": len(self.wall),
        }


def take_turns(
    programs: Programs,
    rounds: int,
    warm_up: int = WARM_UP,
    limit_s: float | None = None,
) -> dict[str, Times]:
    """Run all programs once a round, so that what disturbs one disturbs all.

    Args:
        programs: By name.
        rounds: Turns that count, of each.
        warm_up: Turns before them that do not.
        limit_s: No round begins that would probably end later; None: no limit.
    """
    times = {name: Times() for name in programs}
    start, longest = time.perf_counter(), 0.0
    for index in range(warm_up + rounds):
        begin = time.perf_counter()
        if limit_s is not None and begin + longest > start + limit_s:
            break
        for name, program in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            program()
            if index >= warm_up:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].processor.append(time.process_time() - processor)
        longest = max(longest, time.perf_counter() - begin)
    return times


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What this machine reaches when nothing else is asked of it.

    Attributes:
        flops: Floating point operations a second, of a large matrix product.
        bandwidth: Bytes a second, read and written, where nothing fits a cache.
    """

    flops: float
    bandwidth: float

    def bound_s(self, flops: float, num_bytes: float) -> float:
        """Return the seconds below which no program with these counts can be."""
        return max(flops / self.flops, num_bytes / self.bandwidth)

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"Peaks measured in this run: {self.flops / 1e9:.0f} GFLOP/s (matrix "
            f"product), {self.bandwidth / 1e9:.1f} GB/s (reading and writing)."
        )


def measure_peaks(dtype: Any, rounds: int = 7) -> Peaks:
    """Measure the machine, on one device.

    Args:
        dtype: Of the matrices.
        rounds: Runs of each, of which the fastest counts.
    """
    is_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if is_cpu else (8192, 2**29)
    matrix = jnp.ones((side, side), dtype)
    vector = jnp.ones(length, jnp.float32)
    product = jax.jit(jnp.matmul)
    # In place, or the kernel's handing out of pages would be measured.
    increment = jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [vector]

    def copy() -> None:
        box[0] = increment(box[0]).block_until_ready()

    times = take_turns(
        {
            "product": lambda: product(matrix, matrix).block_until_ready(),
            "copy": copy,
        },
        rounds,
    )
    return Peaks(
        flops=2 * side**3 / min(times["product"].wall),
        bandwidth=2 * box[0].nbytes / min(times["copy"].wall),
    )
