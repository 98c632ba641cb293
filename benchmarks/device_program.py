"""Compile the network's programs for a GPU or TPU that is not there, and count.

    python -m benchmarks.device_program --target=h100 --work=train --variant=tiny
    python -m benchmarks.device_program --target=v5e:2x4 --devices=8 --batch=16
    python -m benchmarks.device_program --target=h100 --devices=256 --batch=256 --fsdp=8
    python -m benchmarks.device_program --target=rtx3090 --fits

Printed are kernels and bytes of one run on one device (see program_counts.py), which
no cache makes fewer, the compiler's memory plan, exchanges between devices, seconds of
compilation (`compile_cpu_s`: of all cores, which other processes disturb less), and the
time that the device's memory needs for these bytes: no program takes less. `--fits`
compiles variants, batches and types in turn and says which fit the device's memory.
More than 8 GPUs stand in machines of 8. Needs jax[cuda13] or jax[tpu] in the
environment, and no such device.
"""

import argparse
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import program_counts

WORKS = ("train", "pretrain", "forward", "labels")
_GIB = 2**30


class Gpu(NamedTuple):
    """What XLA is told of a GPU.

    Attributes:
      name: The name of the device.
      capability: CUDA compute capability.
      cores: Number of streaming multiprocessors.
      lanes: Number of float32 lanes of each multiprocessor.
      threads: Number of threads that each multiprocessor holds.
      shared_kib: Shared memory of each multiprocessor.
      shared_block_kib: Largest part of the shared memory that one block may ask for.
      cache_mib: Size of the second-level cache.
      clock_ghz: Clock of the multiprocessors.
      bandwidth: Bandwidth of the memory, in bytes per second.
      memory_gib: Size of the memory.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared_kib: int
    shared_block_kib: int
    cache_mib: int
    clock_ghz: float
    bandwidth: float
    memory_gib: float

    def describe(self) -> str:
        """Return XLA's GpuTargetConfigProto as text."""
        major, minor = self.capability
        return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_kib * 1024}
  threads_per_core_limit: {self.threads}
  core_count: {self.cores}
  fpus_per_core: {self.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {self.bandwidth:.0f}
  l2_cache_size: {self.cache_mib * 2**20}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.memory_gib * _GIB:.0f}
  shared_memory_per_block_optin: {self.shared_block_kib * 1024}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{self.name}"
"""


_HOPPER = ((9, 0), 132, 128, 2048, 228, 227, 50, 1.98)
GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", *_HOPPER, 3.35232e12, 79.1),
    "h200": Gpu("NVIDIA H200", *_HOPPER, 4.8e12, 139.8),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB",
        *((8, 0), 108, 64, 2048, 164, 163, 40, 1.41, 2.039e12, 79.1),
    ),
    "rtx3090": Gpu(
        "NVIDIA GeForce RTX 3090",
        *((8, 6), 82, 128, 1536, 100, 99, 6, 1.695, 0.936e12, 23.6),
    ),
}
# Bytes per second, and memory of one chip in GiB.
TPUS = {"v5e": (0.819e12, 15.75), "v6e": (1.64e12, 31.25)}


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target",
        default="h100",
        help=f"{', '.join(GPUS)}, or a TPU slice as v5e:2x4 or v6e:2x4",
    )
    parser.add_argument(
        "--work",
        choices=WORKS,
        default="train",
        help="pretrain: the encoder on ImageNet; --size=224 --classes=1000",
    )
    parser.add_argument("--variant", nargs="+", default=["tiny"])
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="of all")
    parser.add_argument("--size", type=int, nargs="+", default=[512], help="of squares")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"])
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--fsdp", type=int, default=1, help="mesh.fsdp")
    parser.add_argument("--depthwise", help="default: the configuration's")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--fits", action="store_true", help="memory only; +- remat")
    parser.add_argument("--hlo", type=pathlib.Path, help="file for the program's text")
    parser.add_argument("--top", type=int, default=0, help="rows of single kernels")
    return parser.parse_args()


def topology_devices(target: str, num_devices: int) -> list[Any]:
    """Return devices that programs can be compiled for.

    Raises:
      ValueError: If the target is unknown.
    """
    from jax.experimental import topologies

    if target in GPUS:
        topology = topologies.get_topology_desc(
            "",
            "cuda",
            topology=f"{-(-num_devices // 8)}x1x{min(num_devices, 8)}",
            target_config=GPUS[target].describe(),
        )
    elif target.split(":")[0] in TPUS and ":" in target:
        topology = topologies.get_topology_desc(target, "tpu")
    else:
        raise ValueError(
            f"--target must be one of {', '.join(GPUS)} or a TPU slice like v5e:2x4: "
            f"got {target!r}."
        )
    return list(topology.devices)[:num_devices]


def lower(options: argparse.Namespace) -> Any:
    """Return the traced and lowered program of one variant, batch, size and type."""
    import jax
    import jax.numpy as jnp

    from segnext_jax.config import base_config
    from segnext_jax.config.files import read_file
    from segnext_jax.models.classifier import MSCANClassifier
    from segnext_jax.models.initialization import abstract_variables
    from segnext_jax.models.segnext import SegNeXt
    from segnext_jax.ops import photometric, sharding
    from segnext_jax.ops.upsampled import upsampled_labels
    from segnext_jax.training import state
    from segnext_jax.training.optimizer import Optimizer
    from segnext_jax.training.step import make_step
    from segnext_jax.training.tasks.classification_step import classification_batch
    from segnext_jax.training.tasks.segmentation_step import segmentation_batch

    is_pretraining = options.work == "pretrain"
    recipe = pathlib.Path(__file__).parents[1] / "configs/imagenet_tiny.py"
    config: Any = read_file(recipe) if is_pretraining else base_config()
    config.model.variant = options.variant
    config.model.dtype = options.dtype
    config.model.remat = options.remat
    if options.depthwise:
        config.model.depthwise = options.depthwise
    network = MSCANClassifier if is_pretraining else SegNeXt
    model: Any = network.from_config(config.model, options.classes)
    devices = topology_devices(options.target, options.devices)
    mesh = sharding.make_mesh(options.fsdp, devices)
    whole, spread = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def shapes(tree: Any, where: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            tree,
        )

    def array(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

    batch, side = options.batch, options.size
    variables = abstract_variables(model)
    if options.work in ("train", "pretrain"):
        optimizer = Optimizer.from_config(config)
        if is_pretraining:
            prepare = classification_batch(config, options.classes, whole)
            answers = {"label": array((batch,), jnp.int32)}
        else:
            prepare = segmentation_batch(config, 255)
            answers = {
                "label": array((batch, side, side), jnp.uint8),
                "size": array((batch, 2), jnp.int32),
            }
        step = make_step(model, optimizer, prepare, config, whole)
        created = jax.eval_shape(lambda v: state.create(v, optimizer), variables)
        stored = sharding.state_shardings(created, mesh, config.mesh.fsdp_min_size)
        images = {"image": array((batch, side, side, 3), jnp.uint8)}
        arguments = jax.tree.map(shapes, created, stored), images | answers
        function = jax.jit(step, out_shardings=(stored, whole), donate_argnums=0)
    else:
        (bases,) = model.draws().values()

        def forward(variables: Any, images: Any) -> Any:
            repeated = jnp.broadcast_to(bases, (len(images), *bases.shape[1:]))
            apply: Callable[..., Any] = model.apply
            if options.work == "forward":
                return apply(variables, images, repeated)
            data = config.data
            images = photometric.normalize(images, data.mean, data.std)
            return upsampled_labels(apply(variables, images, repeated), 8)

        dtype = jnp.uint8 if options.work == "labels" else jnp.float32
        arguments = shapes(variables, whole), array((batch, side, side, 3), dtype)
        function = jax.jit(forward, out_shardings=spread)
    platform = "cuda" if options.target in GPUS else "tpu"
    return function.trace(*arguments).lower(lowering_platforms=(platform,))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is printed, after writing the program's text."""
    start = time.perf_counter()
    lowered = lower(options)
    traced, processors = time.perf_counter(), sum(os.times()[:4])
    compiled = lowered.compile()
    seconds = time.perf_counter() - traced
    processor_seconds = sum(os.times()[:4]) - processors
    plan = compiled.memory_analysis()
    result = {
        "temporaries_gib": round(plan.temp_size_in_bytes / _GIB, 2),
        "arguments_gib": round(plan.argument_size_in_bytes / _GIB, 3),
        "needs_gib": round(
            (
                plan.temp_size_in_bytes
                + plan.argument_size_in_bytes
                + plan.output_size_in_bytes
                - plan.alias_size_in_bytes
            )
            / _GIB,
            2,
        ),
        "trace_s": round(traced - start, 1),
        "compile_s": round(seconds, 1),
        "compile_cpu_s": round(processor_seconds, 1),
    }
    if options.fits:
        return result
    text = compiled.as_text()
    if options.hlo:
        options.hlo.write_text(text)
    rows = program_counts.read(text)
    result = program_counts.totals(rows) | result
    moved = result["gigabytes"]
    if options.target in GPUS:
        bandwidth = GPUS[options.target].bandwidth
    else:
        bandwidth = TPUS[options.target.split(":")[0]][0]
        # For a TPU the cost analysis knows more than the program's text: fusions keep
        # arrays in on-chip memory.
        (moved,) = (compiled.cost_analysis()["bytes accessed"] / 1e9,)
        result["cost_analysis_gigabytes"] = round(moved, 2)
        result["program_mb"] = round(plan.generated_code_size_in_bytes / 1e6, 1)
    result["milliseconds_at_bandwidth"] = round(1e12 * moved / bandwidth, 2)
    for row in rows[: options.top]:
        print(
            f"{row.num_bytes / 1e9:8.2f} GB  x{row.times:<4d} {row.operation} "
            f"{row.name}  {row.source[-120:]}"
        )
    for name, kernels, num_bytes in program_counts.by_group(rows):
        print(f"{num_bytes / 1e9:8.2f} GB  {kernels:6d} kernels  {name}")
    return result


def main() -> None:
    """Compile and print, one line of JSON for each program."""
    options = parse()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    memory = (
        GPUS[options.target].memory_gib
        if options.target in GPUS
        else TPUS[options.target.split(":")[0]][1]
    )
    remat = (False, True) if options.fits else (options.remat,)
    for variant, batch, size, dtype, is_remat in itertools.product(
        options.variant, options.batch, options.size, options.dtype, remat
    ):
        one = argparse.Namespace(**vars(options))
        one.variant, one.batch, one.size = variant, batch, size
        one.dtype, one.remat = dtype, is_remat
        result = measure(one)
        if options.fits:
            result["fits"] = result["needs_gib"] < memory
        asked = (
            "target",
            "work",
            "variant",
            "batch",
            "size",
            "dtype",
            "devices",
            "fsdp",
        )
        about = {name: getattr(one, name) for name in asked} | {"remat": is_remat}
        print(json.dumps(about | result), flush=True)


if __name__ == "__main__":
    main()
