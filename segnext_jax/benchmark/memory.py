"""Peak memory of a program, above its weights, optimizer state and inputs.

On a CPU it is the process's resident memory, as the kernel counts it for any library.
On a GPU each library counts what its own allocator has handed out. Either is fair only
in a process that runs nothing else: see `alone`.
"""

import ctypes
import gc
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")

# Of the column of a table.
RESIDENT = "peak MB (resident, alone)"
ALLOCATED = "peak MB (allocator, alone)"


class Counter(NamedTuple):
    """Counts the bytes that an accelerator's allocator has handed out.

    Attributes:
      reset: Forgets the peak, where that is possible.
      in_use: Bytes now.
      peak: Most bytes at a time.
    """

    reset: Callable[[], None]
    in_use: Callable[[], int]
    peak: Callable[[], int]


def jax_counter() -> Counter | None:
    """Return the counter of JAX's first device; None for a CPU.

    JAX cannot forget a peak: where compiling took more than the program, it shows that.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None

    def read(field: str) -> int:
        return (device.memory_stats() or {}).get(field, 0)

    return Counter(
        lambda: None, lambda: read("bytes_in_use"), lambda: read("peak_bytes_in_use")
    )


def measure_peak(
    first_run: Callable[[], Any],
    run: Callable[[], Any],
    settle: Callable[[], int],
    counter: Counter | None,
    num_runs: int = 3,
) -> dict[str, float]:
    """Return the peak of some runs in MB, by the name of its column.

    Empty where the kernel does not let a process reset its own peak.

    Args:
      first_run: Runs a program for the first time.
      run: Runs it again.
      settle: See `segnext_jax.benchmark.programs.Program`.
      counter: Of the accelerator; None: resident memory counts.
      num_runs: Runs after the first.
    """
    if counter is not None:
        counter.reset()
        before = counter.in_use()
        first_run()
        state = settle()
        for _ in range(num_runs):
            run()
        return {ALLOCATED: (counter.peak() - before - state) / 2**20}
    # The first run reads code from disk, and may compile: that is none of its arrays.
    first_run()
    settle()

    def run_all() -> None:
        for _ in range(num_runs):
            run()

    peak = resident_peak_mb(run_all)
    return {} if peak is None else {RESIDENT: peak}


def resident_peak_mb(function: Callable[[], Any]) -> float | None:
    """Return how far a call lifts this process's resident memory, in MB.

    None where the kernel does not let a process reset its own peak.
    """
    if not _STATUS.exists():
        return None
    gc.collect()
    _return_free_memory()
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    before = _resident_kb("VmRSS")
    function()
    return (_resident_kb("VmHWM") - before) / 1024


def _return_free_memory() -> None:
    """Give back what the C library keeps of freed blocks.

    Otherwise the next run would find part of its memory there, and seem to need less.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident_kb(field: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
