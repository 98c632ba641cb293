"""Time the multi-scale attention as one kernel beside XLA's, on a GPU.

    python benchmarks/multi_scale_gpu.py [--types bfloat16] [--seconds 600]
    python benchmarks/multi_scale_gpu.py --interpret  # a dry run at tiny sizes

Prints a Markdown table for the stages at a batch of 16: median milliseconds of the
forward pass and of forward and gradient (by images and weights), and the GB/s that one
read and one write of the images in the forward's time come to. Values and gradients are
compared with those of grouped convolutions in float32 before anything is timed. What
would begin after --seconds is left out: the kernels of a stage take long to compile.
"""

import argparse
import concurrent.futures
import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.multi_scale_pallas import default_tile, multi_scale_fused

BATCH = 16
# Size, and channels of each stage.
SIZES = (128, 64, 32, 16)
CHANNELS = {"tiny": (32, 64, 160, 256), "base": (64, 128, 320, 512)}
LENGTHS = (7, 11, 21)
# By what they change of the default tile.
TILES = ("default", "2 rows", "2 columns", "half the rows", "more channels")
# Calls of one measurement, and measurements, of which the median counts.
NUM_CALLS = 10
NUM_RUNS = 5
# Compiling takes most of the time; what would begin after this is left out.
SECONDS = 110


def tiles(shape):
    """Return tiles by name."""
    tile = default_tile(shape)
    half = max(1, tile.columns // 2)
    changes = {
        "default": {},
        "2 rows": {"rows_at_once": 2},
        "2 columns": {"columns_at_once": 2, "columns": half},
        "half the rows": {"rows": max(1, tile.rows // 2)},
        "more channels": {"columns": half, "channels": 2 * tile.channels},
    }
    return {name: tile._replace(**change) for name, change in changes.items()}


def arguments(shape, dtype):
    """Return images, weights and a cotangent."""
    generator = np.random.default_rng(0)
    sizes = {"conv0": (5, 5)}
    for index, length in enumerate(LENGTHS):
        sizes[f"conv{index}_1"] = (1, length)
        sizes[f"conv{index}_2"] = (length, 1)
    weights = {
        name: (
            jnp.asarray(generator.standard_normal((*size, shape[-1])), jnp.float32)
            / np.prod(size) ** 0.5,
            jnp.zeros(shape[-1], jnp.float32),
        )
        for name, size in sizes.items()
    }
    images, cotangent = (
        jnp.asarray(generator.standard_normal(shape, np.float32), dtype)
        for _ in range(2)
    )
    return images, weights, cotangent


def with_gradient(function):
    """Return a function to the result and all gradients."""

    def compute(images, weights, cotangent):
        output, pull = jax.vjp(function, images, weights)
        return output, pull(cotangent)

    return compute


def check(given, wanted, dtype):
    """Compare with float32, each array by its largest value."""
    # Results in bfloat16, also between convolutions: 8 bits. Sums of 2^18 pixels.
    tolerance = 2**-5 if dtype == jnp.bfloat16 else 2**-9
    for ours, theirs in zip(*map(jax.tree.leaves, (given, wanted)), strict=True):
        ours, theirs = (np.asarray(array, np.float32) for array in (ours, theirs))
        limit = tolerance * np.max(np.abs(theirs)) + 1e-6
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


def median_ms(function, inputs, num_calls, num_runs):
    """Return the median time of a call of a compiled function."""
    times = []
    for _ in range(num_runs):
        start = time.perf_counter()
        for _ in range(num_calls):
            output = function(*inputs)
        jax.block_until_ready(output)
        times.append(1e3 * (time.perf_counter() - start) / num_calls)
    return statistics.median(times)


def measure(shape, dtype, options, deadline):
    """Yield name, forward ms, ms with the gradient, None where no time is left."""
    images, weights, cotangent = arguments(shape, dtype)
    functions = {
        name: functools.partial(multi_scale, implementation=name)
        for name in ("grouped", "shifted")
    }
    for name, tile in tiles(shape).items():
        if name in options.tiles:
            functions[f"pallas, {name}"] = functools.partial(
                multi_scale_fused, tile=tile, interpret=options.interpret
            )
    if time.perf_counter() > deadline:
        yield "all", None, None
        return
    floats = jax.tree.map(lambda a: a.astype(jnp.float32), (images, cotangent))
    wanted = jax.jit(with_gradient(functions["grouped"]))(floats[0], weights, floats[1])
    calls, runs = (1, 1) if options.interpret else (NUM_CALLS, NUM_RUNS)

    def compiled(name):
        if time.perf_counter() > deadline:
            return None
        function, both = functions[name], with_gradient(functions[name])
        return (
            jax.jit(function).lower(images, weights).compile(),
            jax.jit(both).lower(images, weights, cotangent).compile(),
        )

    # Python traces one at a time, and compilers run beside each other.
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        programs = dict(zip(functions, pool.map(compiled, functions), strict=True))
    for name, pair in programs.items():
        if pair is None:
            yield name, None, None
            continue
        forward, both = pair
        check(both(images, weights, cotangent), wanted, dtype)
        yield (
            name,
            median_ms(forward, (images, weights), calls, runs),
            median_ms(both, (images, weights, cotangent), calls, runs),
        )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=list(CHANNELS))
    parser.add_argument("--types", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--stages", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--tiles", nargs="+", default=list(TILES), choices=TILES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument(
        "--interpret", action="store_true", help="tiny sizes on any platform, unchecked"
    )
    options = parser.parse_args()
    if jax.default_backend() != "gpu" and not options.interpret:
        sys.exit("This measures kernels for NVIDIA GPUs, and JAX finds none here.")
    deadline = time.perf_counter() + options.seconds
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {BATCH}\n")
    print("| stage | type | form | forward ms | with gradient ms | forward GB/s |")
    print("|---|---|---|---|---|---|")
    for variant in options.variants:
        for stage in options.stages:
            size, channels = SIZES[stage - 1], CHANNELS[variant][stage - 1]
            shape = (BATCH, size, size, channels)
            if options.interpret:
                shape = (1, 5, 6, 2)
            for dtype in map(jnp.dtype, options.types):
                report(f"{variant} {stage}", shape, dtype, options, deadline)


def report(stage, shape, dtype, options, deadline):
    """Print the rows of a stage and the best tile."""
    num_bytes = 2 * np.prod(shape) * dtype.itemsize
    fused = {}
    for name, forward, both in measure(shape, dtype, options, deadline):
        if forward is None:
            print(f"| {stage} | {dtype} | {name} | no time left | | |", flush=True)
            continue
        if name.startswith("pallas"):
            fused[name] = forward, both
        print(
            f"| {stage} | {dtype} | {name} | {forward:.3f} | {both:.3f} "
            f"| {num_bytes / forward / 1e6:.0f} |",
            flush=True,
        )
    if fused:
        best = min(fused, key=lambda name: fused[name][0])
        best_both = min(fused, key=lambda name: fused[name][1])
        print(f"| {stage} | {dtype} | best: {best}; with gradient: {best_both} | | | |")


if __name__ == "__main__":
    main()
