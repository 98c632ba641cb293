"""Seconds from a network in memory to its first result, in processes that know nothing.

Each program starts in a process of its own and finds nothing that was compiled before.
What counts is tracing, compilation and one run; what does not are the start of Python,
imports, weights and inputs on their way to the device.
"""

import argparse
import importlib
import statistics
from typing import Any

import jax

from segnext_jax.benchmark import alone
from segnext_jax.benchmark.cases import add_options, add_size_options, split, works
from segnext_jax.benchmark.report import Report
from segnext_jax.benchmark.time_limit import CaseStopped, Limit


def add_compile_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of compile."""
    add_options(parser)
    add_size_options(parser)
    parser.add_argument(
        "--rounds", type=int, default=1, help="processes of each program, in turn"
    )
    # The time to torch.compile's first step is what ours compares to.
    parser.set_defaults(torch_forms=["eager", "channels_last", "compile"])


def run(options: argparse.Namespace) -> Report:
    """Measure all cases."""
    device = jax.devices()[0].device_kind
    report = Report(f"Time to the first result: {options.dtype}, {device}", [])
    for one in split(options):
        limit = Limit(options.time_limit)
        for work in works(options):
            try:
                report.rows += _measure(work, one, limit, report.notes)
            except CaseStopped as stop:
                name = f"{one.variant} {one.batch}x{one.size}"
                report.notes.append(f"{name}: left: {stop}")
    if options.against:
        # Measured elsewhere; the report says with how many threads.
        importlib.import_module("torch")
    report.notes.append(
        "First s: tracing, compilation and one run, each program in a process of its "
        "own without anything compiled before."
    )
    return report


def _measure(
    work: str, options: argparse.Namespace, limit: Limit, notes: list[str]
) -> list[dict[str, Any]]:
    forms = options.torch_forms if options.against else []
    seconds: dict[str, list[float]] = {
        name: [] for name in ("ours", *(f"torch {form}" for form in forms))
    }
    for _ in range(options.rounds):
        for name in list(seconds):
            limit.check(f"{work}, {name}")
            try:
                found = alone.measure(
                    options, work, name, is_cold=True, limit_s=limit.left_s()
                )
            except alone.ProgramFailed as failure:
                alone.leave(name, failure, notes)
                del seconds[name]
                continue
            seconds[name].append(found["first s"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    compiled = medians.get("torch compile")
    return [
        {
            "variant": options.variant,
            "size": options.size,
            "batch": options.batch,
            "work": work,
            "program": name,
            "first s": medians[name],
            "spread s": max(values) - min(values),
            "ratio to torch compile": medians[name] / compiled if compiled else None,
        }
        for name, values in seconds.items()
    ]
