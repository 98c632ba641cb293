"""Measure this package beside PyTorch: `python -m benchmarks.compare --work step`.

Both networks have the same weights, images and NMF bases; their outputs are compared,
then they take turns in one process. Their memory is measured in a process of its own
for each. Several works, variants, sizes and batches make a table of how the cost grows.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import itertools
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.compare import own_process, roofline
from benchmarks.compare.programs import (
    WORKS,
    Case,
    Program,
    check_same,
    count_flops,
    make_inputs,
)
from segnext_jax.benchmark.programs import machine, table_line, take_turns
from segnext_jax.cli import command
from segnext_jax.models.segnext import VARIANTS

COUNTED = (
    "Share of the roofline: the time that this machine's peaks allow, over the median. "
    "Counted are two FLOPs for each multiplication of convolutions and matrix products "
    "(three times that for a train step), and each weight, input and result read or "
    "written once (optimizer state and weights of a train step, too).\n"
    "Peak MB: what a run adds to weights, optimizer state and inputs, in a process of "
    "its own, whose C library gives freed blocks back at once."
)


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Measure all cases; print a table, each row when it is known.

    Args:
      arguments: The command line's.
      is_program: See `segnext_jax.main.main`.

    Raises:
      ValueError: If the command line cannot be run (see `parse`), or the two networks
        differ.
    """
    options = parse(arguments)
    # JAX would take three quarters of a GPU's memory, and PyTorch runs beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if is_program and options.keep_memory and jax.default_backend() == "cpu":
        # As a training does; what PyTorch allocates beside it has the same allocator.
        command.keep_freed_memory()
    names = ["ours", *(f"torch {form}" for form in options.torch_forms)]
    notes: list[str] = []
    if options.first:
        measure = functools.partial(first_results, names, options, notes)
    else:
        peaks = roofline.measure_peaks(options.dtype)
        measure = functools.partial(in_turn, names, options, notes, peaks)
    with _shared_programs(is_program):
        columns = None
        for case in options.cases:
            for row in _rows(measure, case, notes):
                if columns is None:
                    columns = list(row)
                    lines = columns, ["---"] * len(columns)
                    sys.stdout.write("".join(map(table_line, lines)))
                sys.stdout.write(table_line([row[name] for name in columns]))
                sys.stdout.flush()
    if not options.first:
        notes += [str(peaks), COUNTED]
    if options.torch_forms:
        notes.append(f"torch {importlib.metadata.version('torch')}, same machine.")
    line = shlex.join(["python", "-m", "benchmarks.compare", *arguments])
    notes.append(f"{machine()}: `{line}`")
    sys.stdout.write("\n" + "\n\n".join(notes) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options, with ``cases``: a `Case` for every combination.

    Raises:
      ValueError: If a size or batch is impossible, or PyTorch is missing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Measure this package beside PyTorch. Several works, variants, "
        "sizes and batches: every combination is measured.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--work",
        choices=WORKS,
        nargs="+",
        default=["logits", "labels"],
        help="logits: of normalised images, at 1/8; labels: bytes of images to label "
        "maps on the host; step: of training; evaluation: of photographs, to counts",
    )
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=["tiny"])
    parser.add_argument(
        "--size",
        nargs="+",
        default=["512x512"],
        help="HEIGHTxWIDTH, or one side of squares; multiples of 32",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--depthwise", help="formulation of depthwise convolutions; default: config's"
    )
    parser.add_argument(
        "--torch_forms",
        choices=("eager", "channels_last", "compile"),
        nargs="*",
        default=["eager", "channels_last"],
        help="how PyTorch runs the network; compile (in channels_last) takes minutes; "
        "none: ours is measured alone",
    )
    parser.add_argument("--rounds", type=int, default=11, help="runs of each program")
    parser.add_argument(
        "--first",
        action="store_true",
        help="seconds to the first result, --rounds times in processes of their own "
        "that find nothing compiled before",
    )
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure each program's memory, in a process of its own",
    )
    parser.add_argument(
        "--keep_memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on a CPU keep freed memory, as a training does: for all programs",
    )
    options = parser.parse_args(arguments)
    if min(*options.batch, options.rounds) < 1:
        raise ValueError("--batch and --rounds must be at least 1.")
    if options.torch_forms and importlib.util.find_spec("torch") is None:
        raise ValueError(
            "PyTorch is not installed here: pip install 'segnext_jax[test]' installs "
            "the version that was compared. --torch_forms without a value measures "
            "ours alone."
        )
    sizes = [command.parse_size(text, "--size", multiple=32) for text in options.size]
    common = (options.classes, options.dtype, options.depthwise)
    options.cases = [
        Case(work, variant, size, batch, *common)
        for variant, size, batch, work in itertools.product(
            options.variant, sizes, options.batch, options.work
        )
    ]
    return options


def _rows(measure: Callable, case: Case, notes: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a case; none if memory is not enough for it."""
    height, width = case.size
    size = "photographs" if case.work == "evaluation" else f"{height}x{width}"
    shown = {"variant": case.variant, "size": size, "batch": case.batch}
    try:
        return [shown | {"work": case.work} | row for row in measure(case)]
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        name = f"{case.work} of {case.variant}, {case.batch}x{size}"
        notes.append(f"Left, for memory was not enough: {name}.")
        return []


def in_turn(
    names: Sequence[str],
    options: argparse.Namespace,
    notes: list[str],
    peaks: roofline.Peaks,
    case: Case,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each program, all of them timed in turn."""
    programs: dict[str, Program] = {}
    peak_mb: dict[str, float | None] = {}
    difference: dict[str, float] = {}
    expected = np.zeros(0)
    for name in names:
        try:
            program = own_process.build(case, name)
            output = program.to_numpy(program.run())
            if options.memory:
                # Later, so that the compiler finds our program compiled: its trials
                # would count as the program's memory.
                found = own_process.measure(case, name, is_cold=False)
                peak_mb[name] = found.get("peak MB")
        except Exception as error:
            # Whatever torch.compile may raise, the other forms are measured.
            if name != "torch compile" or _is_out_of_memory(error):
                raise
            notes.append(_without(case, name, error))
            continue
        if name == "ours":
            expected = output
        else:
            difference[name] = check_same(case, expected, output)
        programs[name] = program
    times = take_turns({name: p.run for name, p in programs.items()}, options.rounds)
    best = min((times[name].median_ms for name in difference), default=None)
    inputs = make_inputs(case)
    bound_ms = peaks.bound_ms(count_flops(case, inputs), programs["ours"].num_bytes)
    photographs = inputs.photographs()
    megapixels = sum(label_map.size for _, label_map in photographs) / 1e6
    for name, program in programs.items():
        median_ms = times[name].median_ms
        yield {
            "program": name,
            **times[name].columns(len(photographs)),
            "ms per megapixel": median_ms / megapixels,
            "ratio to best torch": median_ms / best if best else None,
            "share of roofline": bound_ms / median_ms,
            "peak MB": peak_mb.get(name),
            "plan MB": program.plan_mb,
            "difference": difference.get(name),
        }


def first_results(
    names: Sequence[str], options: argparse.Namespace, notes: list[str], case: Case
) -> Iterator[dict[str, Any]]:
    """Yield a row for each program: tracing, compilation and one run, from nothing."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in list(seconds):
            try:
                found = own_process.measure(case, name, is_cold=True)
            except RuntimeError as error:
                if name == "ours":
                    raise
                notes.append(_without(case, name, error))
                del seconds[name]
                continue
            seconds[name].append(found["first s"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    compiled = medians.get("torch compile")
    for name, values in seconds.items():
        yield {
            "program": name,
            "first s": medians[name],
            "spread s": max(values) - min(values),
            "ratio to torch compile": medians[name] / compiled if compiled else None,
        }


@contextlib.contextmanager
def _shared_programs(is_program: bool) -> Iterator[None]:
    """Let processes that measure memory find the programs that this one compiles."""
    config: Any = jax.config
    if not is_program or config.jax_compilation_cache_dir:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        config.update("jax_compilation_cache_dir", folder)
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        # The cache keeps to the folder of the first program: that of the peaks.
        compilation_cache.reset_cache()
        yield


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    signs = ("resource_exhausted", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def _without(case: Case, name: str, error: BaseException) -> str:
    return f"Without {case.work}, {name}: {command.first_line(error)}"


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
