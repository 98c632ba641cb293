"""Modules of a network, with parameters, multiplications and sizes of features.

Nothing is compiled or computed: shapes are traced.
"""

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend.core import jaxprs_in_params

from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import resize

Path = tuple[str, ...]


def describe(model: SegNeXt, size: tuple[int, int], depth: int = 3) -> list[str]:
    """Return the lines of the table of modules and of the features.

    Args:
      model: The network.
      size: (height, width) of the image in pixels.
      depth: Modules nested deeper are counted in those that hold them.
    """
    num_parameters = count_parameters(model)
    num_macs = count_macs(model, size)
    modules = [
        path for path in _with_parents(num_parameters | num_macs) if len(path) <= depth
    ]
    names = ["  " * len(path) + (path[-1] if path else "SegNeXt") for path in modules]
    width = max(map(len, names))
    image = f"a {size[0]}x{size[1]} image"
    lines = [
        f"Multiplications (MACs) are those of {image}.",
        "",
        f"{'module':<{width}}  {'parameters':>12}  {'MACs':>10}",
    ]

    def row(path: Path, name: str) -> str:
        parameters = _total(num_parameters, path)
        macs = _total(num_macs, path) / 1e9
        return f"{name:<{width}}  {parameters:>12,}  {macs:>8.3f} G"

    lines += map(row, modules, names)
    # Again below a table that may be longer than the terminal.
    lines += [row((), "whole network")]
    lines += ["", f"Features of {image} (height, width, channels):"]
    for name, shape in feature_shapes(model, size).items():
        lines.append(f"  {name:<8} {' x '.join(map(str, shape))}")
    return lines


def count_parameters(model: SegNeXt) -> dict[Path, int]:
    """Return the number of values in each array of parameters, by path."""
    flat = traverse_util.flatten_dict(abstract_variables(model)["params"])
    counts: collections.Counter[Path] = collections.Counter()
    for path, leaf in flat.items():
        counts[path[:-1]] += math.prod(leaf.shape)
    return dict(counts)


def count_macs(model: SegNeXt, size: tuple[int, int]) -> dict[Path, int]:
    """Return multiply-accumulates of an inference of one image, by module.

    Convolutions and matrix products count, those of the decomposition among them;
    normalisations, activations and resizes do not. That is what PyTorch's flop counter
    counts; torchprofile, by which the paper's figures were made, adds about 3 %.
    """
    variables = abstract_variables(model)
    # The network as it is published, not in the order with fewer multiplications.
    model = model.clone(depthwise_implementation="grouped", official_order=True)
    jaxpr = jax.make_jaxpr(model.apply)(variables, _image(size))
    counts: collections.Counter[Path] = collections.Counter()
    for stack, macs in _products(jaxpr.jaxpr, ""):
        if resize.SCOPE not in stack:
            # "SegNeXt/backbone/block1_0/..."; linen names scopes after modules.
            counts[_module_path(stack)] += macs
    return dict(counts)


def feature_shapes(model: SegNeXt, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return (height, width, channels) of the four stages and of the logits."""
    apply = functools.partial(
        model.apply,
        capture_intermediates=lambda module, method: (
            (module.name, method) == ("backbone", "__call__")
        ),
        mutable=["intermediates"],
    )
    logits, captured = jax.eval_shape(apply, abstract_variables(model), _image(size))
    (stages,) = captured["intermediates"]["backbone"]["__call__"]
    shapes = {f"stage {i}": leaf.shape[1:] for i, leaf in enumerate(stages, start=1)}
    return shapes | {"logits": logits.shape[1:]}


def _image(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)


def _products(jaxpr: Any, outer: str) -> Iterator[tuple[str, int]]:
    """Yield (scope, multiply-accumulates) of each product, inner programs included."""
    for equation in jaxpr.eqns:
        stack = f"{outer}/{equation.source_info.name_stack}"
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            output_features = equation.params["dimension_numbers"].rhs_spec[0]
            outputs = math.prod(equation.outvars[0].aval.shape)
            yield stack, outputs * math.prod(kernel) // kernel[output_features]
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            outputs = math.prod(equation.outvars[0].aval.shape)
            yield stack, outputs * math.prod(left[axis] for axis in contracted)
        inner_programs = list(jaxprs_in_params(equation.params))
        if name == "cond":
            # Formulations for several platforms, of which the last is for any.
            inner_programs = inner_programs[-1:]
        for inner in inner_programs:
            yield from _products(inner, stack)


def _module_path(stack: str) -> Path:
    parts = [part for part in stack.split("/") if part and "(" not in part]
    # The scope of an einsum: "bnd,bdr->bnr".
    parts = [part for part in parts if "->" not in part]
    if parts and parts[0] == "SegNeXt":
        parts = parts[1:]
    return tuple(part.removesuffix(".__call__") for part in parts)


def _with_parents(counts: dict[Path, int]) -> list[Path]:
    """Return all modules, each before those that it holds, by name and number."""
    modules = {path[:n] for path in counts for n in range(len(path) + 1)}

    def key(path: Path) -> list[list[str | int]]:
        # "block3_10" after "block3_2": every second part is a number.
        parts = (re.split(r"(\d+)", name) for name in path)
        return [[int(x) if x.isdecimal() else x for x in part] for part in parts]

    return sorted(modules, key=key)


def _total(counts: dict[Path, int], path: Path) -> int:
    return sum(n for inner, n in counts.items() if inner[: len(path)] == path)
