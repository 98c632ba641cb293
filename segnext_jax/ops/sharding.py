"""The mesh of devices, and how arrays lie on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# The mesh axis along which the images of a batch are spread.
DATA_AXIS = "data"
# The axis along which, besides, parameters and moments are spread.
FSDP_AXIS = "fsdp"


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh of devices with the axes `DATA_AXIS` and `FSDP_AXIS`.

    Axes are Auto: the compiler places the arrays between those that are annotated.
    Explicit axes, JAX's present default, break linen's convolutions.

    Args:
      fsdp: Devices that share one copy of the parameters.
      devices: A number of `jax.Device`. None: all devices of all processes.

    Raises:
      ValueError: If ``fsdp`` does not divide the number of devices.
    """
    num_devices = jax.device_count() if devices is None else len(devices)
    if num_devices % fsdp:
        known = [str(n) for n in range(1, num_devices + 1) if num_devices % n == 0]
        raise ValueError(
            "config.mesh.fsdp must divide the number of devices: got "
            f"{fsdp} for {num_devices} devices. Set it to {' or '.join(known)}."
        )
    return jax.make_mesh(
        (num_devices // fsdp, fsdp),
        (DATA_AXIS, FSDP_AXIS),
        (AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array whose first dimension is the batch."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def state_shardings(tree: Any, mesh: Mesh, min_size: int) -> Any:
    """Return the sharding of each array of a training state.

    An array of ``min_size`` values or more is spread over `FSDP_AXIS` along its longest
    dimension that the axis divides; every other one is whole on each device. With an
    axis of size 1 all are.

    Args:
      tree: Arrays, or their shapes: parameters, moments, statistics.
      mesh: From `make_mesh`.
      min_size: Number of values.
    """
    num_parts = mesh.shape[FSDP_AXIS]

    def sharding(leaf: Any) -> NamedSharding:
        lengths = [n if n % num_parts == 0 else 0 for n in leaf.shape]
        if num_parts == 1 or leaf.size < min_size or not any(lengths):
            return replicated(mesh)
        longest = lengths.index(max(lengths))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP_AXIS))

    return jax.tree.map(sharding, tree)


def check_batch_size(
    batch_size: int, mesh: Mesh, field: str, accumulate_steps: int = 1
) -> None:
    """Refuse a global batch that the devices cannot share evenly.

    Args:
      batch_size: Images per step over all devices.
      mesh: The devices.
      field: Name of the config field, for the message.
      accumulate_steps: Parts that each device cuts its share into.

    Raises:
      ValueError: If the number of devices times that of parts does not divide
        ``batch_size``.
    """
    num_devices = mesh.devices.size
    unit = num_devices * accumulate_steps
    if batch_size % unit:
        lower = batch_size // unit * unit
        upper = lower + unit
        choices = f"{lower} or {upper}" if lower else f"{upper}"
        times = " times config.accumulate_steps" if accumulate_steps > 1 else ""
        parts = f" and {accumulate_steps} parts" if accumulate_steps > 1 else ""
        raise ValueError(
            f"config.{field} must be a multiple of the number of devices{times}: got "
            f"{batch_size} images for {num_devices} devices{parts}. Set it to "
            f"{choices}."
        )


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Turn the process's part of a batch into global arrays spread over the mesh."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Put a tree of arrays whole on every device."""
    return jax.device_put(tree, replicated(mesh))
