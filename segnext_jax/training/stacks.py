"""Small arrays joined into vectors: updates of a few arrays instead of hundreds.

A network's parameters are hundreds of arrays, most of some hundred values. If a GPU
updates each array by itself, each takes a few kernel launches: together most of the
launches of a train step.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Array, Bool

# Larger arrays stay by themselves: to join and to split them moves more bytes than the
# launches are worth.
_MAX_SIZE = 32_768


class Stacks:
    """Which arrays of a tree lie in which vector.

    A vector stands at the path of its first array, so that rules by path, and
    optimizers that treat each value by itself, work on vectors as on arrays.
    """

    def __init__(self, tree: Any, names: Any, smallest_apart: int | None = None):
        """Group the small arrays by name and type.

        Args:
          tree: Of arrays.
          names: A tree of the same structure. Arrays of different names never share a
            vector.
          smallest_apart: Arrays of so many values or more stay by themselves. None:
            only those for which a vector does not pay.
        """
        if smallest_apart is None or smallest_apart > _MAX_SIZE:
            smallest_apart = _MAX_SIZE + 1
        self._structure = jax.tree.structure(tree)
        name_of = _flat(names)
        vectors: dict[Hashable, list[tuple]] = {}
        self._shapes: dict[tuple, tuple[int, ...]] = {}
        for path, leaf in _flat(tree).items():
            self._shapes[path] = leaf.shape
            is_large = math.prod(leaf.shape) >= smallest_apart
            vector = path if is_large else (name_of[path], leaf.dtype)
            vectors.setdefault(vector, []).append(path)
        self._vectors = list(vectors.values())

    def join(self, state: Any) -> Any:
        """Return vectors of a tree like the given one, or of all such in a state."""
        return jax.tree.map(
            lambda part: self._join(part) if self._is_tree(part) else part,
            state,
            is_leaf=self._is_tree,
        )

    def _is_tree(self, part: Any) -> bool:
        return jax.tree.structure(part) == self._structure

    def _join(self, tree: Any) -> Any:
        leaves = _flat(tree)
        vectors = {}
        for paths in self._vectors:
            arrays = [leaves[path] for path in paths]
            joined = arrays[0]
            if len(arrays) > 1:
                joined = jnp.concatenate([array.reshape(-1) for array in arrays])
            vectors[paths[0]] = joined
        return traverse_util.unflatten_dict(vectors)

    def _split(self, joined: Any, like: Any, parents: "_Parents") -> Any:
        return jax.tree.map(
            lambda old, new: self._places(new, parents) if self._is_tree(old) else new,
            like,
            joined,
            is_leaf=self._is_tree,
        )

    def _places(self, joined: Any, parents: "_Parents") -> Any:
        vectors = _flat(joined)
        leaves = {}
        for paths in self._vectors:
            vector = vectors[paths[0]]
            if len(paths) == 1:
                leaves[paths[0]] = vector
                continue
            start = parents.append(vector)
            for path in paths:
                leaves[path] = _Place(vector.dtype, start, self._shapes[path])
                start += math.prod(self._shapes[path])
        return traverse_util.unflatten_dict(leaves)


def split(parts: Sequence[tuple[Stacks, Any, Any]], is_any: Bool[Array, ""]) -> list:
    """Return what was joined.

    Args:
      parts: Each the stacks, what their `Stacks.join` returned (or a tree of the same
        structure), and a tree of the structure that `Stacks.join` was given.
      is_any: Any value that XLA does not know before the program runs.
    """
    # XLA for GPUs makes one kernel of all arrays of a size that are taken out of one
    # vector, but only if it does not see that they do not overlap, and something is
    # computed of each: a place that is known only then, and a choice.
    parents = _Parents()
    places = [stacks._split(joined, like, parents) for stacks, joined, like in parts]
    zero = jnp.minimum(is_any.astype(jnp.int32), 0)
    joined = {
        # Otherwise XLA would compute the vector again for each of its arrays.
        dtype: lax.optimization_barrier(jnp.concatenate(vectors))
        for dtype, vectors in parents.vectors.items()
    }

    def take(place: Any) -> Any:
        if not isinstance(place, _Place):
            return place
        size = math.prod(place.shape)
        array = lax.dynamic_slice(joined[place.dtype], (place.start + zero,), (size,))
        return jnp.where(zero == 0, array, 0).reshape(place.shape)

    return jax.tree.map(take, places)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an array lies in the parent vector of its type."""

    dtype: Any
    start: int
    shape: tuple[int, ...]


class _Parents:
    """The vectors of each type, to be joined into one.

    Attributes:
      vectors: By type.
    """

    def __init__(self):
        self.vectors: dict[Any, list[Array]] = {}

    def append(self, vector: Array) -> int:
        """Return the vector's place in the parent of its type."""
        others = self.vectors.setdefault(vector.dtype, [])
        others.append(vector)
        return sum(len(other) for other in others[:-1])


def _flat(tree: Any) -> dict[tuple, Any]:
    return dict(traverse_util.flatten_dict(tree))
