"""Time and memory of the network: forward, train step, evaluation.

Ours and PyTorch's (``--against``) have the same weights, images and NMF bases and take
turns; before that their outputs are compared. With several variants, sizes or batches
the table shows how the cost grows.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from segnext_jax.benchmark import alone, turns
from segnext_jax.benchmark.cases import (
    Case,
    add_evaluation_options,
    add_options,
    add_size_options,
    make_case,
    split,
    works,
)
from segnext_jax.benchmark.programs import Program, build, check_same
from segnext_jax.benchmark.report import Report
from segnext_jax.benchmark.time_limit import CaseStopped, Forecast, Limit

TITLES = {"forward": "Forward", "train": "Train step", "evaluate": "Evaluation"}
# Of an inference. Backward: products of the gradient with weights and activations.
FLOPS_FACTOR = {"logits": 1, "labels": 1, "evaluation": 1, "step": 3}
COUNTED = (
    "Share of the roofline: the time that this machine's peaks allow, over the median. "
    "Counted are two FLOPs for each multiplication of convolutions and matrix products "
    "(segnext_jax.describe; three times that for a train step), and each weight, input "
    "and result read or written once (for label maps and evaluation weights once a "
    "batch, images and labels as bytes; for a train step the optimizer's state, too)."
)
MEMORY = (
    "Peak memory: what a run adds to weights, optimizer state and inputs, the most of "
    "several runs after a first one, in a process of its own, whose C library gives "
    "freed blocks back at once."
)


def add_timing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of forward and train."""
    add_options(parser)
    add_size_options(parser)
    _add_turns(parser)


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of evaluate."""
    add_options(parser)
    add_evaluation_options(parser)
    _add_turns(parser)


def _add_turns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=11, help="turns of each program")
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure each program's memory, in a process of its own",
    )


def run(options: argparse.Namespace) -> Report:
    """Measure forward, train or evaluate, in all cases."""
    cases, names = list(split(options)), works(options)
    device = jax.devices()[0].device_kind
    report = Report(
        f"{TITLES[options.what]}: {options.dtype}, {device}, {options.rounds} rounds "
        "in turn",
        [],
    )
    peaks = turns.measure_peaks(options.dtype)
    forecast = Forecast(options.rounds + turns.WARM_UP)
    with _shared_compilation_cache():
        for one in cases:
            name = f"{one.variant} {one.batch}x{one.size}"
            limit = Limit(options.time_limit)
            try:
                case = make_case(one)
                for work in names:
                    report.rows += _measure(
                        work, one, case, peaks, limit, forecast, report.notes
                    )
            except CaseStopped as stop:
                report.notes.append(f"{name}: left: {stop}")
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                report.notes.append(f"{name}: left: memory was not enough.")
    report.notes += [str(peaks), COUNTED]
    if options.memory:
        report.notes.append(MEMORY)
    if options.what == "evaluate":
        report.notes.append("PyTorch takes one image at a time, as the official code.")
    return report


def _measure(
    work: str,
    options: argparse.Namespace,
    case: Case,
    peaks: turns.Peaks,
    limit: Limit,
    forecast: Forecast,
    notes: list[str],
) -> list[dict[str, Any]]:
    """Return a row for each program that does a work."""
    flops = FLOPS_FACTOR[work] * case.count_flops()
    names = _names(options)
    forecast.check(work, names, flops, limit)
    lifted: dict[str, Any] = {}
    programs: dict[str, Program] = {}
    differences: dict[str, float] = {}
    expected = np.zeros(0)
    is_cpu = jax.default_backend() == "cpu"
    for name in names:
        limit.check(f"{work}, {name}")
        try:
            # On a CPU first: a process that the kernel ends for its memory is not
            # this one. On a GPU later: its compiler must find our program compiled, or
            # its trials would count as the program's memory.
            if is_cpu:
                lifted[name] = _lift(options, work, name, limit)
            program = build(work, name, options, case)
            output, _ = program.first_run()
            if not is_cpu:
                lifted[name] = _lift(options, work, name, limit)
        except alone.ProgramFailed as failure:
            alone.leave(name, failure, notes)
            continue
        except Exception as error:
            # Whatever torch.compile may raise, the other forms are measured.
            if name != "torch compile" or _is_out_of_memory(error):
                raise
            notes.append(f"Without {work}, {name}: {_first_line(error)}")
            continue
        if name == "ours":
            expected = output
        else:
            differences[name] = check_same(work, expected, output, options.dtype)
        programs[name] = program
    times = turns.take_turns(
        {name: program.run for name, program in programs.items()},
        options.rounds,
        limit_s=limit.left_s(),
    )
    forecast.add(work, times, flops)
    if not times["ours"].wall:
        raise CaseStopped(f"{work}: --time_limit={limit.seconds:.0f} allows no round.")
    medians = {name: value.to_row()["median ms"] for name, value in times.items()}
    best = min((m for name, m in medians.items() if name != "ours"), default=None)
    bound_ms = 1e3 * peaks.bound_s(flops, programs["ours"].num_bytes or 0.0)
    return [
        {
            "variant": options.variant,
            "size": options.size,
            "batch": options.batch,
            "work": work,
            "program": name,
            **times[name].to_row(),
            "images/s": 1e3 * case.num_images / medians[name],
            "ms per megapixel": medians[name] / case.megapixels,
            "ratio to best torch": medians[name] / best if best else None,
            "share of roofline": bound_ms / medians[name],
            **lifted[name],
            "compiler's plan MB": program.plan_mb,
            "difference": differences.get(name),
        }
        for name, program in programs.items()
    ]


def _names(options: argparse.Namespace) -> list[str]:
    forms = options.torch_forms if options.against else []
    return ["ours", *(f"torch {form}" for form in forms)]


def _lift(
    options: argparse.Namespace, work: str, name: str, limit: Limit
) -> dict[str, float]:
    if not options.memory:
        return {}
    found = alone.measure(options, work, name, is_cold=False, limit_s=limit.left_s())
    return found["peak"]


@contextlib.contextmanager
def _shared_compilation_cache() -> Iterator[None]:
    """Let processes that measure memory find the programs that this one compiles."""
    config: Any = jax.config
    if config.jax_compilation_cache_dir:
        yield
        return
    settings = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    before = {name: os.environ.get(name) for name in settings}
    seconds = config.jax_persistent_cache_min_compile_time_secs
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.environ |= dict(zip(settings, (folder, "0"), strict=True))
            config.update("jax_compilation_cache_dir", folder)
            config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            # It keeps to the folder of the first program that it saw.
            compilation_cache.reset_cache()
            yield
        finally:
            config.update("jax_compilation_cache_dir", None)
            config.update("jax_persistent_cache_min_compile_time_secs", seconds)
            compilation_cache.reset_cache()
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    signs = ("resource_exhausted", "out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
