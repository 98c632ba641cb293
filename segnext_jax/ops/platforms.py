"""Formulations per platform: chosen when a program is lowered, traced only then."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax._src import dispatch
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

# A kernel of hundreds of operations is traced only for the platform that it is for:
# `jax.lax.platform_dependent` would trace it in every program for a CPU, too.
_choose_p = Primitive("by_platform")
_choose_p.multiple_results = True
# Kernels that are divided by images (kernels/per_image.py) ask which devices they are
# for, which JAX tells only to operations that are registered here; there is no public
# way.
dispatch.prim_requires_devices_during_lowering.add(_choose_p)


def by_platform(
    *arguments: Any, cuda: Callable, default: Callable, **options: Hashable
) -> Any:
    """Return ``cuda(*arguments, **options)`` in programs for NVIDIA GPUs.

    In all others ``default(*arguments, **options)``. The derivative is that of
    ``default`` everywhere: for the inside of rules that say what the gradient is.

    Args:
      *arguments: Trees of arrays.
      cuda: A function of a module, so that programs with equal options are one.
      default: The same; its results have the same shapes and types.
      **options: Of both functions.
    """
    leaves, tree = jax.tree.flatten(arguments)
    shapes = jax.eval_shape(lambda *a: default(*a, **options), *arguments)
    result_leaves, result_tree = jax.tree.flatten(shapes)
    results = _choose_p.bind(
        *leaves,
        cuda=cuda,
        default=default,
        options=tuple(sorted(options.items())),
        tree=tree,
        outputs=tuple((leaf.shape, leaf.dtype) for leaf in result_leaves),
    )
    return jax.tree.unflatten(result_tree, results)


@_choose_p.def_abstract_eval
def _abstract(*leaves: Any, outputs: tuple, **_: Any) -> list:
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in outputs]


_choose_p.def_impl(functools.partial(dispatch.apply_primitive, _choose_p))


def _apply(name: str, *leaves: Any, options: tuple, tree: Any, **params: Any) -> list:
    arguments = jax.tree.unflatten(tree, leaves)
    return jax.tree.leaves(params[name](*arguments, **dict(options)))


def _derivative(primals: Any, tangents: Any, **params: Any) -> tuple[list, list]:
    default = functools.partial(_apply, "default", **params)
    tangents = map(ad.instantiate_zeros, tangents)
    _, tangents_out = jax.jvp(default, tuple(primals), tuple(tangents))
    return _choose_p.bind(*primals, **params), tangents_out


ad.primitive_jvps[_choose_p] = _derivative
for _name, _platform in (("default", None), ("cuda", "cuda")):
    mlir.register_lowering(
        _choose_p,
        mlir.lower_fun(functools.partial(_apply, _name), multiple_results=True),
        platform=_platform,
    )


def has_kernels_for(images: jax.Array) -> bool:
    """Return whether kernels take images: they count in 32 bits, and sum in 32."""
    is_known = isinstance(images.size, int) and images.dtype.itemsize <= 4
    return is_known and images.size < 2**31
