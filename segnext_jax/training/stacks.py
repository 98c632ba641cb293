"""Small arrays joined into vectors: updates of a few arrays instead of hundreds.

A network's parameters are hundreds of arrays, most of some hundred values. If an
accelerator updates each array by itself, each takes a few kernel launches: together
most of the launches of a train step.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Array

from segnext_jax.training import optimizer as optimizer_lib

# Larger arrays stay by themselves: to take one out of a stack costs a pass over all
# arrays of its shape.
_MAX_SIZE = 32_768
# Most arrays of one shape that are stacked. XLA makes several kernels of larger sums.
_MAX_COUNT = 30


class Stacks:
    """Which parameters lie in which vector.

    Each rule has vectors of its own. A vector stands at the path of its first
    parameter, so that rules by path, and optimizers that treat each value by itself,
    work on vectors as on parameters.
    """

    def __init__(self, params: Any, rules: tuple[optimizer_lib.Rule, ...]):
        """Group the parameters by rule and type, those of one shape side by side.

        Args:
          params: What is trained.
          rules: The rules of the optimizer.
        """
        self._structure = jax.tree.structure(params)
        claimed = _flat(optimizer_lib.assign(params, rules))
        vectors: dict[Any, dict[Any, list[tuple]]] = {}
        self._shapes: dict[tuple, tuple[int, ...]] = {}
        for path, leaf in _flat(params).items():
            self._shapes[path] = leaf.shape
            is_large = math.prod(leaf.shape) > _MAX_SIZE
            vector = path if is_large else (claimed[path].name, leaf.dtype)
            shapes = vectors.setdefault(vector, {})
            key: Any = leaf.shape
            while len(shapes.get(key, ())) == _MAX_COUNT:
                key = (key, "next")
            shapes.setdefault(key, []).append(path)
        self._vectors = [list(shapes.values()) for shapes in vectors.values()]

    def join(self, state: Any) -> Any:
        """Return stacks of a tree like the parameters, or of all such in a state."""
        return jax.tree.map(
            lambda part: self._stack(part) if self._is_tree(part) else part,
            state,
            is_leaf=self._is_tree,
        )

    def split(self, joined: Any, like: Any) -> Any:
        """Return what was joined.

        Args:
          joined: What `join` returned, or a tree of the same structure.
          like: A tree of the structure that `join` was given.
        """
        return jax.tree.map(
            lambda old, new: self._unstack(new) if self._is_tree(old) else new,
            like,
            joined,
            is_leaf=self._is_tree,
        )

    def _is_tree(self, part: Any) -> bool:
        return jax.tree.structure(part) == self._structure

    def _stack(self, tree: Any) -> Any:
        leaves = _flat(tree)
        vectors = {}
        for stacks in self._vectors:
            arrays = [leaves[path] for paths in stacks for path in paths]
            joined = arrays[0]
            if len(arrays) > 1:
                joined = jnp.concatenate([array.reshape(-1) for array in arrays])
            vectors[stacks[0][0]] = joined
        return traverse_util.unflatten_dict(vectors)

    def _unstack(self, tree: Any) -> Any:
        vectors = _flat(tree)
        leaves = {}
        for stacks in self._vectors:
            vector = vectors[stacks[0][0]]
            if len(stacks) == len(stacks[0]) == 1:
                leaves[stacks[0][0]] = vector
                continue
            start = 0
            for paths in stacks:
                shape = self._shapes[paths[0]]
                stop = start + len(paths) * math.prod(shape)
                stack = vector[start:stop].reshape(len(paths), *shape)
                leaves.update(zip(paths, _taken_apart(stack), strict=True))
                start = stop
        return traverse_util.unflatten_dict(leaves)


def _flat(tree: Any) -> dict[tuple, Any]:
    return dict(traverse_util.flatten_dict(tree))


def _taken_apart(stack: Array) -> list[Array]:
    """Return the arrays of a stack.

    Each array is a sum over the whole stack, in which the other arrays count as 0. XLA
    makes one kernel of all such sums, but one kernel of each slice.
    """
    place = lax.broadcasted_iota(jnp.int32, stack.shape, 0)
    return [
        jnp.sum(jnp.where(place == index, stack, 0), axis=0, dtype=stack.dtype)
        for index in range(len(stack))
    ]
