"""What devices that share a batch compute by themselves.

XLA cannot look into a kernel: left to itself it would gather the batch, and every
device would compute all of it.
"""

import functools
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from segnext_jax.ops.kernels.targets import GPU, Target


def per_image(function: Callable, num_batched: int, target: Target = GPU) -> Callable:
    """Return a function of arrays that is divided by images.

    On GPUs XLA divides the images as it divides what comes before. On TPUs, for which
    XLA does not ask (jax-ml/jax issue 38196), all devices of the program's mesh get as
    many images each, or all images where they are no multiple of the devices.

    Args:
      function: A function of arrays. Its first ``num_batched`` arguments and all its
        results begin with the batch, and it computes each image on its own. It must
        read its sizes from its arguments, since a device has a part of the batch, and
        must not close over arrays.
      num_batched: Number of arguments that begin with the batch. Each device has the
        other arguments whole.
      target: What the function is for. For TPUs call it inside of `by_platform`, which
        knows the mesh.
    """

    def of_images(*arrays: jax.Array, axes: tuple[str, ...]) -> Any:
        return function(*arrays)

    if target.is_tpu:
        return functools.partial(_by_mesh, of_images, num_batched, True)
    return _divided(of_images, num_batched, "b")


def _by_mesh(
    function: Callable, num_batched: int, has_batch: bool, *arrays: jax.Array
) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1:
        return function(*arrays, axes=())
    is_divided = arrays[0].shape[0] % mesh.size == 0
    axes = mesh.axis_names if is_divided else ()
    shared = PartitionSpec(axes) if is_divided else PartitionSpec()
    return jax.shard_map(
        functools.partial(function, axes=axes),
        mesh=mesh,
        in_specs=tuple(
            shared if place < num_batched else PartitionSpec()
            for place in range(len(arrays))
        ),
        out_specs=shared if has_batch else PartitionSpec(),
        # Kernels do not say over which axes their results differ.
        check_vma=False,
    )(*arrays)


def over_devices(
    function: Callable, num_batched: int = 1, target: Target = GPU
) -> Callable:
    """Return a function of arrays whose results are those of the whole batch.

    The function exchanges by itself what it needs of other devices' images, where XLA
    would exchange once for each sum over the batch.

    Args:
      function: Takes arrays, and as ``axes`` the names of the mesh axes over which the
        batch is divided: of `jax.lax.all_gather` and the like, none where the device
        has all images. It must not close over arrays.
      num_batched: Number of arguments that begin with the batch.
      target: See `per_image`.
    """
    if target.is_tpu:
        return functools.partial(_by_mesh, function, num_batched, False)
    return _divided(function, num_batched, None)


@functools.cache
def fingerprint() -> int:
    """Return a number that changes when the code of an operation changes."""
    files = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


def _divided(function: Callable, num_batched: int, of_results: str | None) -> Callable:
    # Without keyword arguments, which custom_partitioning refuses, even unused ones.
    def positional(*arrays: jax.Array) -> Any:
        return function(*arrays[:-1], axes=())

    def partition(mesh: Any, argument_shapes: Any, result_shapes: Any) -> tuple:
        # Arrays with a batch follow the sharding that XLA chose for the first array.
        whole = NamedSharding(mesh, PartitionSpec())
        first = argument_shapes[0].sharding.spec[:1]
        shared = NamedSharding(mesh, PartitionSpec(*first))
        axes = first[0] if first and first[0] else ()
        axes = (axes,) if isinstance(axes, str) else axes
        return (
            mesh,
            lambda *arrays: function(*arrays[:-1], axes=axes),
            jax.tree.map(lambda _: shared if of_results else whole, result_shapes),
            tuple(
                shared if place < num_batched else whole
                for place in range(len(argument_shapes))
            ),
        )

    def call(*arrays: jax.Array) -> Any:
        shapes = jax.eval_shape(functools.partial(function, axes=()), *arrays)
        # What XLA divides does not stand in the program by which JAX looks for it among
        # those that are compiled already; the number does.
        arrays = (*arrays, jnp.full(1, fingerprint(), jnp.uint32))
        names = (f"d{number}" for number in range(1000))

        def dims(array: Any, batch: str | None) -> list[str]:
            first = [batch] if batch else []
            return first + [next(names) for _ in array.shape[len(first) :]]

        inputs = [
            dims(array, "b" if place < num_batched else None)
            for place, array in enumerate(arrays)
        ]
        outputs = [dims(result, of_results) for result in jax.tree.leaves(shapes)]
        divided = custom_partitioning(positional)
        divided.def_partition(
            partition=partition,
            sharding_rule=" -> ".join(
                ", ".join(" ".join(array) for array in side)
                for side in (inputs, outputs)
            ),
            need_replication_factors=tuple(
                name for array in inputs + outputs for name in array if name != "b"
            ),
        )
        return divided(*arrays)

    return call
