"""Time of the operations that the network spends its time in, one at a time.

python -m benchmarks.operations --image_size=256 --batch=2 --rounds=7
"""

import argparse
import functools
import math
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.compare.roofline import Peaks, measure_peaks
from segnext_jax.benchmark.programs import machine, table_line, take_turns
from segnext_jax.cli import command
from segnext_jax.evaluation.scoring import best_labels
from segnext_jax.models.mscan import STRIP_LENGTHS
from segnext_jax.models.segnext import VARIANTS, Variant
from segnext_jax.ops import losses, nmf
from segnext_jax.ops.depthwise import depthwise_conv
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.pointwise import pointwise
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.ops.stride_two import stride_two_conv
from segnext_jax.ops.upsampled import upsampled_cross_entropy, upsampled_labels

KERNEL_SIZES = ((5, 5), *((1, k) for k in STRIP_LENGTHS), *((k, 1) for k in (7, 21)))
# Largest difference between formulations, relative to the largest value.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03}


def main(arguments: list[str]) -> None:
    """Measure each operation at the size that each stage has; print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument("--image_size", type=int, default=512, help="side in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--depthwise", nargs="*", default=["shifted", "grouped"])
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument(
        "--only", nargs="*", help="operations whose names begin so; default: all"
    )
    parser.add_argument("--classes", type=int, default=150, help="of logits")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    peaks = measure_peaks(options.dtype)
    columns = ("stage", "operation", "form", "forward ms", "gradient ms")
    columns += ("share of roofline", "gradient's share")
    sys.stdout.write(table_line(columns) + table_line(["---"] * len(columns)))
    missing: dict[str, list[str]] = {}
    for stage in options.stages:
        first_forms: dict[str, np.ndarray] = {}
        for operation in _operations(options, VARIANTS[options.variant], stage):
            name, form = operation.name, operation.form
            if options.only and not name.startswith(tuple(options.only)):
                continue
            try:
                row = _measure(operation, options, peaks, first_forms)
            # A form that this device lacks, or that its compiler cannot do.
            except Exception as error:
                if not form:
                    raise
                reason = f"{form} {type(error).__name__}: {command.first_line(error)}"
                missing.setdefault(reason, []).append(f"stage {stage} {name}")
                continue
            sys.stdout.write(table_line([stage, name, form, *row]))
    notes = [f"Not measured, {', '.join(v)}: {why}" for why, v in missing.items()]
    notes.append(
        "Share of the roofline: forward, each array read or written once; gradient, "
        "twice the FLOPs, each argument read and its gradient written once."
    )
    line = shlex.join(["python", "-m", "benchmarks.operations", *arguments])
    notes += [str(peaks), f"{machine()}: `{line}`"]
    sys.stdout.write("\n" + "\n\n".join(notes) + "\n")


def _measure(
    operation: "_Operation",
    options: argparse.Namespace,
    peaks: Peaks,
    first_forms: dict[str, np.ndarray],
) -> list[float | None]:
    function, flops = operation.function, operation.flops
    generator = np.random.default_rng(0)
    arguments = [
        jnp.asarray(generator.random(shape), options.dtype)
        for shape in operation.shapes
    ]
    backward = jax.grad(
        lambda *a: jnp.sum(function(*a).astype(jnp.float32)),
        argnums=tuple(range(len(arguments))),
    )
    programs = {"forward": _waiting(function, arguments)}
    result = jax.eval_shape(function, *arguments)
    if jnp.issubdtype(result.dtype, jnp.floating):
        programs["gradient"] = _waiting(backward, arguments)
    output = np.asarray(programs["forward"]().astype(jnp.float32))
    _check_same(operation, output, first_forms, options.dtype)
    times = take_turns(programs, options.rounds)
    forward_ms = times["forward"].median_ms
    gradient_ms = times["gradient"].median_ms if "gradient" in times else None
    read = float(sum(leaf.nbytes for leaf in arguments))
    written = float(result.size * result.dtype.itemsize)
    share = peaks.bound_ms(flops, read + written) / forward_ms
    if gradient_ms is None:
        return [forward_ms, None, share, None]
    bound_ms = peaks.bound_ms(2 * flops, 2 * read)
    return [forward_ms, gradient_ms, share, bound_ms / gradient_ms]


def _check_same(
    operation: "_Operation",
    output: np.ndarray,
    first_forms: dict[str, np.ndarray],
    dtype: str,
) -> None:
    """Refuse to time formulations of one operation that do different things.

    Raises:
      ValueError: If the output differs from that of the first form.
    """
    wanted = first_forms.setdefault(operation.name, output)
    difference = np.max(np.abs(output - wanted)) / np.max(np.abs(wanted))
    if not difference < TOLERANCES[dtype]:
        raise ValueError(
            f"all forms of {operation.name} must give the same: {operation.form} "
            f"differs by {difference:.2g} of the largest value."
        )


def _waiting(function: Callable, arguments: list[Any]) -> Callable[[], Any]:
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


class _Operation(NamedTuple):
    """One formulation of an operation.

    Attributes:
      name: The name of the operation.
      form: The name of the formulation; empty where there is only one.
      function: A function of arrays, differentiated by all of them.
      shapes: The shapes of the arrays.
      flops: Floating-point operations of one call, by the operation's definition.
    """

    name: str
    form: str
    function: Callable
    shapes: list[tuple[int, ...]]
    flops: float


def _operations(
    options: argparse.Namespace, variant: Variant, stage: int
) -> Iterator[_Operation]:
    """Yield what the network computes at the size of a stage."""
    side = options.image_size // 2 ** (stage + 1)
    channels = variant.embed_dims[stage - 1]
    hidden = int(channels * variant.mlp_ratios[stage - 1])
    pixels = options.batch * side**2
    image = (options.batch, side, side, channels)
    wide = (options.batch, side, side, hidden)
    yield from _depthwise(options, image, wide)
    yield from _attention(options, image)
    for form, function in (("own", gelu), ("flax", _flax_gelu)):
        yield _Operation("gelu", form, function, [wide], 25.0 * pixels * hidden)
    forms = (("own", pointwise), ("derived", lambda x, k: jnp.einsum("...c,cf", x, k)))
    for form, function in forms:
        flops = 2.0 * pixels * channels * hidden
        yield _Operation("1x1", form, function, [image, (channels, hidden)], flops)
    before = 3 if stage == 1 else variant.embed_dims[stage - 2]
    features = channels // 2 if stage == 1 else channels
    larger = (options.batch, options.image_size, options.image_size, before)
    if stage > 1:
        larger = (options.batch, 2 * side, 2 * side, before)
    shapes = [larger, (3, 3, before, features), (features,)]
    flops = 2.0 * math.prod(larger[:3]) / 4 * 9 * before * features
    for form, function in (("own", stride_two_conv), ("XLA", _library_conv)):
        yield _Operation("stride two", form, function, shapes, flops)
    if stage == 2:
        yield from _head(options, variant, side)


def _depthwise(
    options: argparse.Namespace, image: tuple[int, ...], wide: tuple[int, ...]
) -> Iterator[_Operation]:
    # For a convolution alone "auto" is "shifted".
    forms = [form for form in options.depthwise if form != "auto"]
    for height, width in (*KERNEL_SIZES, (3, 3)):
        shape = wide if height == width == 3 else image
        shapes = [shape, (height, width, shape[-1])]
        flops = 2.0 * math.prod(shape) * height * width
        for form in forms:
            function = functools.partial(depthwise_conv, implementation=form)
            name = f"depthwise {height}x{width}"
            yield _Operation(name, form, function, shapes, flops)


def _attention(
    options: argparse.Namespace, image: tuple[int, ...]
) -> Iterator[_Operation]:
    """Yield the formulations of the 5x5 and all strip pairs."""
    sizes = {"conv0": (5, 5)}
    for index, length in enumerate(STRIP_LENGTHS):
        sizes |= {f"conv{index}_1": (1, length), f"conv{index}_2": (length, 1)}
    channels = image[-1]
    shapes = [image, *((*size, channels) for size in sizes.values())]
    shapes += [(channels,)] * len(sizes)
    flops = 2.0 * math.prod(image) * sum(h * w for h, w in sizes.values())

    def attention(images: Any, *arrays: Any, form: Any) -> Any:
        kernels, biases = arrays[: len(sizes)], arrays[len(sizes) :]
        weights = dict(zip(sizes, zip(kernels, biases, strict=True), strict=True))
        return multi_scale(images, weights, implementation=form)

    for form in options.depthwise:
        function = functools.partial(attention, form=form)
        yield _Operation("attention", form, function, shapes, flops)


def _head(
    options: argparse.Namespace, variant: Variant, side: int
) -> Iterator[_Operation]:
    """Yield the decomposition, and what is made of logits at 1/8 of the image."""
    width, rank = variant.head_channels, variant.rank
    positions = side**2

    def reconstruct(inputs: Any, bases: Any) -> Any:
        return nmf.reconstruct(inputs, bases, num_steps=6)

    shapes = [(options.batch, positions, width), (options.batch, width, rank)]
    step = 4.0 * positions * width * rank + 4.0 * (positions + width) * rank**2
    flops = 8 * step * options.batch
    yield _Operation("nmf, 6 steps", "", reconstruct, shapes, flops)
    size = (options.batch, 8 * side, 8 * side)
    labels = (
        np.random.default_rng(0).integers(0, options.classes, size).astype(np.uint8)
    )

    def by_cells(logits: Any) -> Any:
        return upsampled_cross_entropy(logits, jnp.asarray(labels)).loss

    def enlarged(logits: Any) -> Any:
        large = resize_bilinear(logits.astype(jnp.float32), size[1:])
        one = jnp.ones((), jnp.float32)
        return losses.cross_entropy(large, jnp.asarray(labels), divisor=one)

    shapes = [(options.batch, side, side, options.classes)]
    # A product and a sum for each axis, and an exponential, twice a value.
    flops = 8.0 * math.prod(size) * options.classes
    for form, function in (("own", by_cells), ("enlarged", enlarged)):
        yield _Operation("loss", form, function, shapes, flops)
    forms = (
        ("own", functools.partial(upsampled_labels, factor=8)),
        ("argmax", lambda x: jnp.argmax(resize_bilinear(x, size[1:]), axis=-1)),
        ("two reductions", lambda x: best_labels(resize_bilinear(x, size[1:]))),
    )
    for form, function in forms:
        yield _Operation("labels", form, function, shapes, flops / 2)


def _flax_gelu(values: Any) -> Any:
    return nn.gelu(values, approximate=False)


def _library_conv(images: Any, kernel: Any, bias: Any) -> Any:
    output = lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return output + jnp.broadcast_to(bias, output.shape)


if __name__ == "__main__":
    main(sys.argv[1:])
