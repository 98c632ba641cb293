"""One program in a process of its own: its memory, and the time to its first result.

What ran before in a process - another library, the compiler, an allocator that keeps
what it had - cannot blur what is measured then.
"""

import ctypes
import gc
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.compare.programs import Case, Program, make_inputs, ours

COMMAND: tuple[str, ...] = (sys.executable, "-m", "benchmarks.compare.own_process")
# Runs after the first of which the largest memory counts.
NUM_RUNS = 3
# The C library gives freed blocks back at once: what it would keep of them differs from
# run to run by more than a small network takes.
_EXACT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")


def build(case: Case, name: str) -> Program:
    """Return a program that has not run yet.

    Args:
      case: What it does.
      name: ``ours``, or ``torch`` and a form: eager, channels_last, compile.
    """
    inputs = make_inputs(case)
    if name == "ours":
        return ours(case, inputs)
    # PyTorch must not be in the process in which ours is measured.
    from benchmarks.compare.torch_network import TorchNetwork

    form = name.removeprefix("torch ")
    return TorchNetwork(case, form, inputs).program()


def measure(case: Case, name: str, *, is_cold: bool) -> dict[str, float]:
    """Return what `answer` found in a process of its own.

    Args:
      case: See `build`.
      name: See `build`.
      is_cold: Whether the process must not find programs that were compiled before;
        otherwise it is for its memory.

    Raises:
      RuntimeError: If the process failed; the message is a sentence.
    """
    request = json.dumps([case, name])
    with tempfile.TemporaryDirectory() as folder:
        without_caches = {
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            # Inductor shares compiled kernels among the programs of one process, too:
            # its cache stays on, in an empty folder.
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "CUDA_CACHE_PATH": f"{folder}/cuda",
        }
        ended = subprocess.run(
            [*COMMAND, request],
            env=os.environ | (without_caches if is_cold else _EXACT_MEMORY),
            capture_output=True,
            text=True,
        )
    if ended.returncode < 0:
        raise RuntimeError(
            f"its process was ended by signal {-ended.returncode}; 9 mostly means out "
            "of memory."
        )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"its process failed: {(lines or ['without a word'])[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def answer(case: Case, name: str) -> dict[str, float]:
    """Return seconds to the first result and peak memory, of this process alone.

    The memory is what runs add to weights, optimizer state and inputs. On a CPU it is
    the resident memory after a first run, which reads code from disk; on a GPU what the
    library's allocator has handed out. JAX cannot forget a peak: where compiling took
    more than the program, it shows that.
    """
    program = build(case, name)
    allocated = _allocator(name)
    before = allocated("now")
    start = time.perf_counter()
    program.run()
    found = {"first s": program.compile_s + time.perf_counter() - start}
    state = program.settle()

    def run_all() -> None:
        for _ in range(NUM_RUNS):
            program.run()

    if jax.default_backend() == "cpu":
        peak = resident_peak_mb(run_all)
    else:
        run_all()
        peak = (allocated("peak") - before - state) / 2**20
    return found | ({} if peak is None else {"peak MB": peak})


def _allocator(name: str) -> Callable[[str], int]:
    """Return a function that reads bytes, ``now`` or at the ``peak``; 0 on a CPU."""
    if name == "ours":
        fields = {"now": "bytes_in_use", "peak": "peak_bytes_in_use"}
        device = jax.local_devices()[0]
        return lambda what: (device.memory_stats() or {}).get(fields[what], 0)
    import torch

    cuda = torch.cuda
    if not cuda.is_available():
        return lambda what: 0
    cuda.reset_peak_memory_stats()
    reads = {"now": cuda.memory_allocated, "peak": cuda.max_memory_allocated}
    return lambda what: reads[what]()


def resident_peak_mb(function: Callable[[], Any]) -> float | None:
    """Return how far a call lifts this process's resident memory, in MB.

    None where the kernel does not let a process reset its own peak.
    """
    gc.collect()
    # The C library would find part of the next run's memory in what it keeps.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    before = _resident_kb("VmRSS")
    function()
    return (_resident_kb("VmHWM") - before) / 1024


def _resident_kb(field: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    fields, name = json.loads(sys.argv[1])
    print(json.dumps(answer(Case(*fields), name)))
