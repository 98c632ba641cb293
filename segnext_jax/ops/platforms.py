"""Formulations per platform: chosen when a program is lowered, traced only then."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.core
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
    *arguments: Any,
    default: Callable,
    cuda: Callable | None = None,
    tpu: Callable | None = None,
    **options: Hashable,
) -> Any:
    """Return ``cuda(*arguments, **options)`` in programs for NVIDIA GPUs since Ampere.

    Programs for TPUs call ``tpu(...)``, all others ``default(...)``. The derivative is
    that of ``default`` on every platform, so call this function inside custom rules,
    which define the gradient themselves.

    Args:
      *arguments: Trees of arrays.
      default: Like the others a function of a module, so that calls with equal options
        are traced once.
      cuda: Returns results of the same shapes and types. None: ``default``.
      tpu: See ``cuda``.
      **options: Keyword arguments that each function gets.
    """
    leaves, tree = jax.tree.flatten(arguments)
    constants = tuple(sorted(options.items()))
    call = functools.partial(_call, function=default, options=constants, tree=tree)
    # JAX lowers an operation in the mesh of its trace, an empty one if there was none,
    # and traces anew what it has traced in none.
    with jax.sharding.use_abstract_mesh(jax.sharding.get_abstract_mesh()):
        shapes, result_tree = jax.tree.flatten(jax.eval_shape(call, *leaves))
    results = _choose_p.bind(
        *leaves,
        default=default,
        cuda=cuda or default,
        tpu=tpu or default,
        options=constants,
        tree=tree,
        outputs=tuple((shape.shape, shape.dtype) for shape in shapes),
    )
    return jax.tree.unflatten(result_tree, results)


def has_kernels_for(images: jax.Array) -> bool:
    """Return whether kernels take images of this size, if a device has few enough.

    They index and sum in 32 bits. How many images a device has is known when the
    program is lowered: `by_platform` has the default then, where these are too many.
    """
    is_known = isinstance(images.size, int) and images.dtype.itemsize <= 4
    return is_known and images.size < 2**31 * images.shape[0]


def _formulation(name: str, context: Any) -> str:
    """Return the name, or "default" if a device has too many values for kernels.

    Batches that the devices divide evenly are divided (kernels/per_image.py). Exported
    programs, which no kernel can be written with, have the default, too.
    """
    if context.module_context.lowering_parameters.for_export:
        return "default"
    num_devices = getattr(context.module_context.axis_context, "num_devices", 1)
    for array in (*context.avals_in, *context.avals_out):
        if isinstance(array.size, int) and array.size >= 2**31:
            is_divided = array.shape[0] % num_devices == 0
            if not is_divided or array.size >= 2**31 * num_devices:
                return "default"
    return name


# Jitted, so that what is traced for its shapes is not traced again to be lowered.
@functools.partial(jax.jit, static_argnames=("function", "options", "tree"))
def _call(*leaves: Any, function: Callable, options: tuple, tree: Any) -> Any:
    return function(*jax.tree.unflatten(tree, leaves), **dict(options))


def _apply(name: str, *leaves: Any, options: tuple, tree: Any, **params: Any) -> list:
    if name == "cuda" and _is_too_old(jax.local_devices()[0]):
        name = "default"
    return jax.tree.leaves(
        _call(*leaves, function=params[name], options=options, tree=tree)
    )


def _is_too_old(device: Any) -> bool:
    """Return whether this process has a GPU that Triton has no kernels for."""
    return device.platform == "gpu" and float(device.compute_capability) < 8


def _derivative(primals: Any, tangents: Any, **params: Any) -> tuple[list, list]:
    default = functools.partial(_apply, "default", **params)
    tangents = map(ad.instantiate_zeros, tangents)
    _, tangents_out = jax.jvp(default, tuple(primals), tuple(tangents))
    return _choose_p.bind(*primals, **params), tangents_out


@_choose_p.def_abstract_eval
def _abstract(*leaves: Any, outputs: tuple, **_: Any) -> list:
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in outputs]


@_choose_p.def_impl
def _evaluate(*leaves: Any, **params: Any) -> list:
    config: Any = jax.config
    if config.jax_debug_nans:
        # JAX looks for the operation that made a nan, which is one within.
        return _apply("default", *leaves, **params)
    return dispatch.apply_primitive(_choose_p, *leaves, **params)


ad.primitive_jvps[_choose_p] = _derivative


def _lower_for_tpu(context: Any, *leaves: Any, **params: Any) -> Any:
    # Kernels for TPUs are divided by the program's mesh (kernels/per_image.py).
    mesh = getattr(context.module_context.axis_context, "abstract_mesh", None)
    apply = functools.partial(_apply, _formulation("tpu", context))
    lower = mlir.lower_fun(apply, multiple_results=True)
    with jax.sharding.use_abstract_mesh(mesh or jax.sharding.AbstractMesh((), ())):
        return lower(context, *leaves, **params)


def _lower_for_cuda(context: Any, *leaves: Any, **params: Any) -> Any:
    apply = functools.partial(_apply, _formulation("cuda", context))
    lower = mlir.lower_fun(apply, multiple_results=True)
    if jax.default_backend() == "gpu":
        return lower(context, *leaves, **params)
    # JAX 0.12 asks which GPU it is that is not here. JAX 0.10 took this one.
    device = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        return lower(context, *leaves, **params)


_lower = mlir.lower_fun(functools.partial(_apply, "default"), multiple_results=True)
mlir.register_lowering(_choose_p, _lower)
mlir.register_lowering(_choose_p, _lower_for_cuda, platform="cuda")
mlir.register_lowering(_choose_p, _lower_for_tpu, platform="tpu")
