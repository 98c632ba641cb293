"""Kernels where devices share a batch: each device computes its own images."""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning


def per_image(function: Callable, num_batched: int) -> Callable:
    """Return a function of arrays that XLA divides by images.

    XLA cannot look into a kernel: left to itself it would gather the batch, and every
    device would compute all of it.

    Args:
      function: Of arrays; their first ``num_batched`` and all results begin with the
        batch, and no image has to do with another. It must take its sizes from the
        arrays that it gets: a device has a part of the batch.
      num_batched: See above. The others are whole on each device.
    """

    # Without keyword arguments, which custom_partitioning refuses, even unused ones.
    def positional(*arrays: jax.Array) -> Any:
        return function(*arrays)

    def call(*arrays: jax.Array) -> Any:
        results = jax.tree.leaves(jax.eval_shape(function, *arrays))
        names = (f"d{number}" for number in range(1000))

        def dims(array: Any, is_batched: bool) -> list[str]:
            first = ["b"] if is_batched else []
            return first + [next(names) for _ in array.shape[len(first) :]]

        inputs = [dims(a, place < num_batched) for place, a in enumerate(arrays)]
        outputs = [dims(result, True) for result in results]
        rule = " -> ".join(
            ", ".join(" ".join(array) for array in side) for side in (inputs, outputs)
        )
        others = [name for a in inputs + outputs for name in a if name != "b"]

        def partition(mesh: Any, argument_shapes: Any, result_shapes: Any) -> tuple:
            return (
                mesh,
                positional,
                jax.tree.map(lambda shape: shape.sharding, result_shapes),
                jax.tree.map(lambda shape: shape.sharding, argument_shapes),
            )

        divided = custom_partitioning(positional)
        divided.def_partition(
            partition=partition,
            sharding_rule=rule,
            need_replication_factors=tuple(others),
        )
        return divided(*arrays)

    return call
