"""Trees of arrays on disk, as orbax writes and reads them."""

import contextlib
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def array_handler() -> ocp.PyTreeCheckpointHandler:
    """Return what writes trees of arrays, each copy of an array from one device.

    Orbax's default lets every device that holds a replicated array write a part of it.
    It cuts the parts by programs that it compiles for each shape and device: the first
    checkpoint of eight devices would hold the training up for as long as a compilation
    of the whole step, to save a copy of some 100 MB.
    """
    handlers = ocp.type_handlers
    return ocp.PyTreeCheckpointHandler(
        type_handler_registry=handlers.create_type_handler_registry(
            (jax.Array, handlers.ArrayHandler(use_replica_parallel=False)),
            (np.ndarray, handlers.NumpyHandler()),
        )
    )


def request(tree: Any) -> ocp.args.PyTreeRestore:
    """Return what asks a checkpoint for the arrays of `abstract`."""
    return ocp.args.PyTreeRestore(
        tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
    )


def read(folder: pathlib.Path) -> Any:
    """Return the tree of arrays of a folder, as NumPy arrays.

    Any number of devices reads what any other number has written.

    Raises:
      Exception: If files are missing or damaged; many types are possible.
    """
    # No Checkpointer, which warns of a file that it does not need.
    path: Any = folder.absolute()  # Orbax names a class of its own, which does more.
    with contextlib.closing(array_handler()) as handler:
        stored = handler.metadata(path)
        wanted = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(stored.tree)
        )
        return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=wanted))


def gathered(tree: Any) -> Any:
    """Return arrays that are spread over processes whole, as NumPy arrays."""
    leaves = jax.tree.leaves(tree)
    if not all(leaf.is_fully_replicated for leaf in leaves):
        whole = jax.NamedSharding(leaves[0].sharding.mesh, jax.P())
        tree = jax.jit(lambda tree: tree, out_shardings=whole)(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def abstract(tree: Any, sharding: Any) -> Any:
    """Return shapes and types of a tree, to be restored with these shardings.

    Args:
      tree: Arrays, or their shapes.
      sharding: One for all, or a tree of them; not that of the saving run, in general.
    """
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        tree,
        jax.tree.broadcast(sharding, tree),
    )
