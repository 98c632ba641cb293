"""The mesh of devices, and how arrays lie on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# The mesh axis along which the images of a batch are spread.
DATA_AXIS = "data"


def make_mesh() -> Mesh:
    """Return a mesh of all devices of all processes, along the data axis.

    Axes are Auto: the compiler places the arrays between those that are annotated.
    Explicit axes, JAX's present default, break linen's convolutions.
    """
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array whose first dimension is the batch."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh, field: str) -> None:
    """Refuse a global batch that the devices cannot share evenly.

    Args:
      batch_size: Images per step over all devices.
      mesh: The devices.
      field: Name of the config field, for the message.

    Raises:
      ValueError: If the number of devices does not divide ``batch_size``.
    """
    num_devices = mesh.devices.size
    if batch_size % num_devices:
        lower = batch_size // num_devices * num_devices
        upper = lower + num_devices
        choices = f"{lower} or {upper}" if lower else f"{upper}"
        raise ValueError(
            f"config.{field} must be a multiple of the number of devices: got "
            f"{batch_size} images for {num_devices} devices. Set it to {choices}."
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
