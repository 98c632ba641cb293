"""One program in a process of its own: its memory, and the time to its first result.

The same command runs again with the hidden option ``--alone``, which names case and
program, and answers with JSON. What ran before in a process - another library, the
compiler, an allocator that keeps what it had - cannot blur what is measured then.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from segnext_jax.benchmark.cases import make_case
from segnext_jax.benchmark.memory import measure_peak
from segnext_jax.benchmark.programs import build
from segnext_jax.benchmark.time_limit import CaseStopped

COMMAND: tuple[str, ...] = (sys.executable, "-m", "segnext_jax.benchmark")
# The C library gives freed blocks back at once: what it would keep of them differs from
# run to run by more than a small network takes.
_EXACT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class ProgramFailed(Exception):
    """A process ended without an answer; the message is a sentence."""


def measure(
    options: argparse.Namespace,
    work: str,
    name: str,
    *,
    is_cold: bool,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Return what `answer` found in a process of its own.

    Args:
      options: Of one case.
      work: See `segnext_jax.benchmark.cases.WORKS`.
      name: Of the program.
      is_cold: Whether it must not find programs that were compiled before; otherwise it
        is for its memory.
      limit_s: It is ended after so many seconds.

    Raises:
      ProgramFailed: If it did not end well, or in time.
    """
    request = {
        "work": work,
        "name": name,
        "variant": options.variant,
        "size": options.size,
        "batch": options.batch,
    }
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "answer.json"
        settings = _without_caches(folder) if is_cold else _EXACT_MEMORY
        command = [
            *(*COMMAND, *options.arguments),
            *(f"--alone={json.dumps(request)}", f"--output={output}"),
        ]
        try:
            ended = subprocess.run(
                command,
                env=os.environ | settings,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            raise ProgramFailed(
                f"{work}, {name}: it took more than the {limit_s:.0f} s that were left "
                "of --time_limit."
            ) from None
        if ended.returncode or not output.exists():
            raise ProgramFailed(f"{work}, {name}: {_reason(ended)}")
        return json.loads(output.read_text())


def leave(name: str, failure: ProgramFailed, notes: list[str]) -> None:
    """Note that a program of PyTorch failed, so that the others are measured.

    Raises:
      CaseStopped: If it is ours.
    """
    if name == "ours":
        raise CaseStopped(str(failure)) from failure
    notes.append(f"Without {failure}")


def _without_caches(folder: str) -> dict[str, str]:
    """Return settings with which nothing is found that was compiled before."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        # Inductor shares compiled kernels among the programs of one process, too: its
        # cache stays on, in an empty folder.
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "TRITON_CACHE_DIR": f"{folder}/triton",
        "CUDA_CACHE_PATH": f"{folder}/cuda",
    }


def _reason(ended: subprocess.CompletedProcess) -> str:
    if ended.returncode < 0:
        return (
            f"its process was ended by signal {-ended.returncode}; 9 mostly means that "
            "the memory was not enough."
        )
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return f"its process failed: {lines[-1] if lines else 'it said nothing'}"


def answer(options: argparse.Namespace) -> None:
    """Measure the program that ``--alone`` names; write JSON to ``--output``."""
    request = json.loads(options.alone)
    work, name = request.pop("work"), request.pop("name")
    for key, value in request.items():
        setattr(options, key, value)
    case = make_case(options)
    program = build(work, name, options, case)
    found: dict[str, Any] = {}

    def first_run() -> None:
        found["first s"] = program.first_run()[1]

    found["peak"] = measure_peak(
        first_run, program.run, program.settle, program.counter
    )
    pathlib.Path(options.output).write_text(json.dumps(found))
