"""Time and memory of a train step on 1, 2, 4, 8 devices, and the bytes it all-reduces.

The devices are forced CPU devices that share the same cores: their times show what the
partitioning costs, not what more devices gain. The bytes are read from the compiled
program and hold for any kind of device.

    python benchmarks/scaling.py                             # times of the tiny variant
    python benchmarks/scaling.py --bytes tiny small base large
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

SIZES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f16": 2}
COUNT = "--xla_force_host_platform_device_count="


def measure(variant: str, num_devices: int, size: int, batch: int, steps: int) -> dict:
    """Compile and run the step on all devices of this process."""
    import resource
    import statistics

    import jax
    import numpy as np

    from segnext_jax.config import base_config
    from segnext_jax.models.initialization import initialize
    from segnext_jax.models.segnext import SegNeXt
    from segnext_jax.training import sharding
    from segnext_jax.training import state as state_lib
    from segnext_jax.training.optimizer import Optimizer
    from segnext_jax.training.tasks.segmentation_step import make_segmentation_step

    assert jax.device_count() == num_devices
    config = base_config()
    config.model.variant = variant
    model = SegNeXt.from_config(config.model, num_classes=150)
    optimizer = Optimizer.from_config(config)
    mesh = sharding.make_mesh()
    state = state_lib.create(initialize(model, seed=0), optimizer)
    state = jax.device_put(state, sharding.replicated(mesh))
    rng = np.random.default_rng(0)
    host_batch = {
        "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "label": rng.integers(0, 150, (batch, size, size)).astype(np.uint8),
        "size": np.full((batch, 2), size, np.int32),
    }
    device_batch = sharding.shard_batch(host_batch, mesh)
    step = jax.jit(
        make_segmentation_step(
            model, optimizer, config, 255, sharding.replicated(mesh)
        ),
        in_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
        donate_argnums=0,
    )
    start = time.perf_counter()
    # Half the time to compile where the program is only read.
    quick = {"xla_backend_optimization_level": 0} if not steps else {}
    compiled = step.lower(state, device_batch).compile(compiler_options=quick)
    result = {
        "compile_seconds": time.perf_counter() - start,
        **all_reduced(compiled.as_text()),
    }
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = compiled(state, device_batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    if times:
        result["step_ms"] = 1e3 * statistics.median(times[1:])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result["peak_memory_mib"] = peak / 1024
        analysis = compiled.memory_analysis()
        result["temporary_mib_per_device"] = analysis.temp_size_in_bytes / 2**20
    return result


def all_reduced(program: str) -> dict[str, float]:
    """Return number and bytes of the all-reduces of a compiled program."""
    pattern = re.compile(r" = (\(?[^=]*?\)?) (all-reduce|all-reduce-start)\(")
    num_bytes = count = 0
    # Long tuples are numbered in comments: /*index=5*/.
    program = re.sub(r"/\*.*?\*/", "", program)
    for match in pattern.finditer(program):
        count += 1
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
            elements = 1
            for side in filter(None, shape.split(",")):
                elements *= int(side)
            num_bytes += SIZES[kind] * elements
    return {"all_reduces": count, "all_reduced_mib": num_bytes / 2**20}


def run_apart(options: argparse.Namespace, **changes) -> dict:
    """Measure in a process of its own, with its own number of devices."""
    chosen = {**vars(options), **changes}
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{COUNT}{chosen['child']}",
    }
    arguments = [
        f"--{name}={chosen[name]}"
        for name in ("child", "variant", "size", "batch", "steps")
    ]
    result = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--size", type=int, default=64, help="of square images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--bytes", nargs="*", default=[], metavar="VARIANT")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        result = measure(
            *(options.variant, options.child, options.size),
            *(options.batch, options.steps),
        )
        sys.stdout.write(json.dumps(result) + "\n")
        return
    if options.bytes:
        jobs = {v: {"variant": v, "child": 2, "steps": 0} for v in options.bytes}
    else:
        jobs = {f"{n} devices": {"child": n} for n in options.devices}
    rows = {name: run_apart(options, **changes) for name, changes in jobs.items()}
    columns = list(next(iter(rows.values())))
    sys.stdout.write(f"| | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|\n")
    for name, row in rows.items():
        cells = " | ".join(f"{row[column]:.4g}" for column in columns)
        sys.stdout.write(f"| {name} | {cells} |\n")


if __name__ == "__main__":
    main()
