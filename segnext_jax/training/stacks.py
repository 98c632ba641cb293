"""Arrays of equal shape side by side: an update of a few arrays instead of hundreds.

A network's parameters are hundreds of small arrays. On an accelerator an update of each
by itself is a few launches for each, of some hundred values: most of a train step's.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Array

from segnext_jax.training import optimizer as optimizer_lib

# Larger arrays stay by themselves: to be taken out again each costs a pass over all.
_MAX_SIZE = 32_768
# Of one stack: XLA makes no single kernel of sums over more.
_MAX_COUNT = 30


class Stacks:
    """Which parameters lie in which stack.

    A stack stands at the path of its first parameter, so that rules by path and
    optimizers that treat each value by itself work on stacks as on parameters.
    """

    def __init__(self, params: Any, rules: tuple[optimizer_lib.Rule, ...]):
        """Group the parameters by rule, shape and type.

        Args:
          params: What is trained.
          rules: Of the optimizer.
        """
        self._structure = jax.tree.structure(params)
        claimed = traverse_util.flatten_dict(optimizer_lib.assign(params, rules))
        groups: dict[Any, list[tuple]] = {}
        for path, leaf in traverse_util.flatten_dict(params).items():
            key: Any = path
            if math.prod(leaf.shape) <= _MAX_SIZE:
                key = claimed[path].name, leaf.shape, leaf.dtype
                while len(groups.get(key, ())) == _MAX_COUNT:
                    key = (*key, "next")
            groups.setdefault(key, []).append(path)
        self._groups = list(groups.values())

    def join(self, state: Any) -> Any:
        """Return stacks of a tree like the parameters, or of all those in a state."""
        return jax.tree.map(
            lambda part: self._stack(part) if self._is_tree(part) else part,
            state,
            is_leaf=self._is_tree,
        )

    def split(self, joined: Any, like: Any) -> Any:
        """Return what was joined.

        Args:
          joined: Of `join`.
          like: Of the structure that was joined.
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
        leaves = traverse_util.flatten_dict(tree)
        stacks = {}
        for paths in self._groups:
            arrays = [leaves[path] for path in paths]
            stacks[paths[0]] = jnp.stack(arrays) if len(arrays) > 1 else arrays[0]
        return traverse_util.unflatten_dict(stacks)

    def _unstack(self, stacks: Any) -> Any:
        flat = traverse_util.flatten_dict(stacks)
        leaves = {}
        for paths in self._groups:
            stack = flat[paths[0]]
            arrays = _taken_apart(stack) if len(paths) > 1 else [stack]
            leaves.update(zip(paths, arrays, strict=True))
        return traverse_util.unflatten_dict(leaves)


def _taken_apart(stack: Array) -> list[Array]:
    """Return the arrays of a stack.

    Each as a sum over all, of which the others count as 0: XLA makes one kernel of such
    sums, and one of each slice.
    """
    place = lax.broadcasted_iota(jnp.int32, stack.shape, 0)
    return [
        jnp.sum(jnp.where(place == index, stack, 0), axis=0, dtype=stack.dtype)
        for index in range(len(stack))
    ]
