"""Describe a network: `python -m segnext_jax.describe --config=configs/ade20k_base.py`.

Prints its modules with parameters and multiplications, the sizes of its features, and
the optimizer's parameter groups. Nothing is compiled or computed: shapes are traced.
"""

import argparse
import collections
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend.core import jaxprs_in_params

from segnext_jax import config as config_lib
from segnext_jax.cli import command
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import resize
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training.optimizer import Optimizer

Path = tuple[str, ...]


def main(arguments: Sequence[str]) -> None:
    """Print the description; see `--help`.

    Raises:
      ValueError: If the configuration cannot run, or is of a classifier.
    """
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.describe",
        description="Print modules, parameters, multiplications and optimizer groups.",
        epilog="Every field of the configuration is an option: --config.FIELD=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the image, in pixels (default: the config's crop size)",
    )
    parser.add_argument(
        "--depth", type=int, default=3, help="levels of modules that are listed"
    )
    options, rest = parser.parse_known_args(arguments)
    config = config_lib.load(options.config, command.overrides(parser, rest))
    if config.task != "segmentation":
        raise ValueError(
            "--config must be one of a segmentation network, which holds the encoder, "
            f"too: {options.config} is of {config.task}. Take one of the same variant."
        )
    num_classes = resolve_spec(config.data).num_classes
    model = SegNeXt.from_config(config.model, num_classes)
    size = tuple(options.size or config.data.crop_size)
    lines = describe(model, size, options.depth)
    params = abstract_variables(model)["params"]
    groups = optimizer_lib.summarize(params, Optimizer.from_config(config).rules)
    lines += ["", "Optimizer groups:", *(f"  {group}" for group in groups)]
    sys.stdout.write("\n".join(lines) + "\n")


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
    lines = [f"{'module':<{width}}  {'parameters':>12}  {'MACs':>10}"]
    for path, name in zip(modules, names, strict=True):
        parameters = _total(num_parameters, path)
        macs = _total(num_macs, path) / 1e9
        lines.append(f"{name:<{width}}  {parameters:>12,}  {macs:>8.3f} G")
    lines += ["", f"Features of a {size[0]}x{size[1]} image (height, width, channels):"]
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
    # The network as it is published: one convolution where the shifted form has a sum,
    # all maps at one size where they are joined.
    model = model.clone(depthwise_implementation="grouped", resize_first=True)
    jaxpr = jax.make_jaxpr(model.apply)(abstract_variables(model), _image(size))
    counts: collections.Counter[Path] = collections.Counter()
    for stack, macs in _products(jaxpr.jaxpr, ""):
        if resize.SCOPE not in stack:
            # "SegNeXt/backbone/block1_0/..."; linen names scopes after modules.
            counts[_module_path(stack)] += macs
    return dict(counts)


def feature_shapes(model: SegNeXt, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return (height, width, channels) of the four stages and of the logits."""

    def apply(variables: Any, images: jax.Array) -> tuple[Any, Any]:
        features = model.apply(variables, images, method=lambda m, x: m.backbone(x))
        return features, model.apply(variables, images)

    variables = abstract_variables(model)
    stages, logits = jax.eval_shape(apply, variables, _image(size))
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
    if parts and parts[0] == "SegNeXt":
        parts = parts[1:]
    return tuple(part.removesuffix(".__call__") for part in parts)


def _with_parents(counts: dict[Path, int]) -> list[Path]:
    """Return all modules, each before those that it holds, in order of first use."""
    modules: dict[Path, None] = {(): None}
    for path in counts:
        for length in range(1, len(path) + 1):
            modules.setdefault(path[:length])
    order = {path: index for index, path in enumerate(modules)}
    return sorted(
        modules, key=lambda path: [order[path[:n]] for n in range(1, len(path) + 1)]
    )


def _total(counts: dict[Path, int], path: Path) -> int:
    return sum(n for inner, n in counts.items() if inner[: len(path)] == path)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
