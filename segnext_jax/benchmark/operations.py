"""Time of the operations that the network spends its time in, one at a time."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.benchmark import turns
from segnext_jax.benchmark.report import Report
from segnext_jax.models.mscan import STRIP_LENGTHS
from segnext_jax.models.segnext import VARIANTS, Variant
from segnext_jax.ops import nmf
from segnext_jax.ops.depthwise import depthwise_conv
from segnext_jax.ops.gelu import gelu

KERNEL_SIZES = ((5, 5), *((1, k) for k in STRIP_LENGTHS), *((k, 1) for k in (7, 21)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument("--image_size", type=int, default=512, help="side in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--depthwise", nargs="*", default=["shifted", "grouped"])
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=11)


def run(options: argparse.Namespace) -> Report:
    """Measure each operation at the size that each stage has."""
    device = jax.devices()[0].device_kind
    report = Report(
        f"Operations: {options.variant}, {options.batch}x{options.image_size} pixels, "
        f"{options.dtype}, {device}, {options.rounds} rounds in turn",
        [],
    )
    peaks = turns.measure_peaks(options.dtype)
    missing: dict[str, list[str]] = {}
    for stage in options.stages:
        variant = VARIANTS[options.variant]
        cases = _cases(options, variant, stage)
        for operation, form, function, shapes, flops in cases:
            shared = {"stage": stage, "operation": operation, "form": form}
            try:
                row = _measure(function, shapes, flops, options, peaks)
            # A form that this device lacks, or that its compiler cannot do.
            except Exception as error:
                if not form:
                    raise
                lines = str(error).strip().splitlines() or [""]
                reason = f"{form} {type(error).__name__}: {lines[0]}"
                missing.setdefault(reason, []).append(f"stage {stage} {operation}")
                continue
            report.rows.append(shared | row)
    for reason, where in missing.items():
        report.notes.append(f"Not measured, {', '.join(where)}: {reason}")
    report.notes.append(
        "Share of the roofline: forward, each array read or written once; gradient, "
        "twice the FLOPs, each argument read and its gradient written once."
    )
    report.notes.append(str(peaks))
    return report


def _measure(
    function: Callable,
    shapes: list[tuple[int, ...]],
    flops: float,
    options: argparse.Namespace,
    peaks: turns.Peaks,
) -> dict[str, float]:
    generator = np.random.default_rng(0)
    arguments = [
        jnp.asarray(generator.random(shape), options.dtype) for shape in shapes
    ]
    backward = jax.grad(
        lambda *a: jnp.sum(function(*a).astype(jnp.float32)),
        argnums=tuple(range(len(arguments))),
    )
    programs = {
        "forward": _waiting(function, arguments),
        "gradient": _waiting(backward, arguments),
    }
    times = turns.take_turns(programs, options.rounds)
    forward_ms, gradient_ms = (
        times[name].to_row()["median ms"] for name in ("forward", "gradient")
    )
    result = jax.eval_shape(function, *arguments)
    read = float(sum(leaf.nbytes for leaf in arguments))
    written = float(result.size * result.dtype.itemsize)
    return {
        "forward ms": forward_ms,
        "gradient ms": gradient_ms,
        "share of roofline": 1e3 * peaks.bound_s(flops, read + written) / forward_ms,
        "gradient's share": 1e3 * peaks.bound_s(2 * flops, 2 * read) / gradient_ms,
    }


def _waiting(function: Callable, arguments: list[Any]) -> Callable[[], Any]:
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


def _cases(
    options: argparse.Namespace, variant: Variant, stage: int
) -> Iterator[tuple[str, str, Callable, list[tuple[int, ...]], float]]:
    """Yield operation, formulation, function, shapes of arguments, operations."""
    side = options.image_size // 2 ** (stage + 1)
    channels = variant.embed_dims[stage - 1]
    hidden = int(channels * variant.mlp_ratios[stage - 1])
    pixels = options.batch * side**2

    def depthwise(form: str) -> Callable:
        return lambda x, k: depthwise_conv(x, k, implementation=form)

    sizes = [(size, channels) for size in KERNEL_SIZES] + [((3, 3), hidden)]
    for (height, width), width_channels in sizes:
        image = (options.batch, side, side, width_channels)
        for form in options.depthwise:
            flops = 2.0 * pixels * width_channels * height * width
            shapes = [image, (height, width, width_channels)]
            yield f"depthwise {height}x{width}", form, depthwise(form), shapes, flops
    image = (options.batch, side, side, hidden)
    yield "gelu", "", gelu, [image], 25.0 * pixels * hidden
    shapes = [(pixels, channels), (channels, hidden)]
    yield "1x1", "", jnp.matmul, shapes, 2.0 * pixels * channels * hidden
    if stage == 2:
        width, rank = variant.head_channels, variant.rank
        positions = side**2

        def reconstruct(inputs: Any, bases: Any) -> Any:
            return nmf.reconstruct(inputs, bases, num_steps=6)

        shapes = [(options.batch, positions, width), (options.batch, width, rank)]
        step = 4.0 * positions * width * rank + 4.0 * (positions + width) * rank**2
        yield "nmf, 6 steps", "", reconstruct, shapes, 8 * step * options.batch
