"""Kernels of a small depthwise convolution and the GELU behind it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.gelu import gelu_slope, gelu_value
from segnext_jax.ops.kernels.plane_program import PlaneProgram, Planes
from segnext_jax.ops.kernels.row_program import (
    Layout,
    Program,
    make_layout,
    pack,
    sum_type,
)
from segnext_jax.ops.kernels.targets import GPU, Target


def weighted(window: list[Array], weights: list[Array]) -> Array:
    """Return the sum of a window times taps; the last weight is the bias."""
    *taps, total = weights
    for value, tap in zip(window, taps, strict=True):
        total += value * tap
    return total


def turned(
    program: Program | PlaneProgram, packed, size: tuple[int, int]
) -> list[Array]:
    """Return the taps of the kernel turned by 180 degrees, and no bias.

    Read from the same packed weights as the convolution's, which are made once.
    """
    taps = [program.weight(packed, index) for index in range(math.prod(size))]
    return [*taps[::-1], program.zero]


def _weights(
    program: Program | PlaneProgram, packed, size: tuple[int, int], has_image_bias: bool
) -> tuple[list[Array], Array | None]:
    """Return taps with the bias, and what is added to the images."""
    count = math.prod(size) + 1
    weights = [program.weight(packed, index) for index in range(count)]
    return weights, program.weight(packed, count) if has_image_bias else None


def _value_kernel(
    images,
    packed,
    output,
    *,
    layout: Layout | Planes,
    size: tuple[int, int],
    has_image_bias: bool,
    has_gelu: bool,
):
    program = layout.program(packed.dtype)
    weights, image_bias = _weights(program, packed, size, has_image_bias)

    def row_fn(row: Array, window: list[Array], carry):
        values = weighted(window, weights)
        program.write(output, row, gelu_value(values) if has_gelu else values)
        return carry

    program.walk_windows(images, size, row_fn, (), image_bias)


def _gradient_kernel(
    images,
    cotangent,
    packed,
    output,
    totals,
    *,
    layout: Layout | Planes,
    size: tuple[int, int],
    has_image_bias: bool,
):
    program = layout.program(packed.dtype)
    weights, image_bias = _weights(program, packed, size, has_image_bias)
    _walk_slopes(
        *(program, images, weights, image_bias, output, totals, size),
        cotangent_fn=lambda row: program.read(cotangent, row),
    )


def _walk_slopes(
    program,
    images,
    weights: list[Array],
    image_bias: Array | None,
    output,
    totals,
    size: tuple[int, int],
    *,
    cotangent_fn: Callable[[Array], Array],
) -> None:
    """Write GELU's slope times the cotangent of each row, and the weights' sums."""

    def row_fn(row: Array, window: list[Array], sums: list[Array]) -> list[Array]:
        values = gelu_slope(weighted(window, weights)) * cotangent_fn(row)
        program.write(output, row, values)
        *taps, bias = sums
        products = (
            program.add(t, v * values) for t, v in zip(taps, window, strict=True)
        )
        return [*products, program.add(bias, values)]

    zeros = [program.zero_sum] * len(weights)
    sums = program.walk_windows(images, size, row_fn, zeros, image_bias)
    for index, total in enumerate(sums):
        program.write_total(totals, index, len(weights), total)


def _joined_gradient_kernel(
    images,
    cotangent,
    factors,
    last,
    scale,
    packed,
    output,
    totals,
    *,
    layout: Layout,
    size: tuple[int, int],
    sizes: tuple[int, int],
    branch: int,
):
    """Compute what `_gradient_kernel` does, its cotangent as a product row by row."""
    program = layout.program(packed.dtype)
    weights, image_bias = _weights(program, packed, size, has_image_bias=True)
    channels, branches = sizes
    factor = program.of_image(factors, branches, branch)
    kernel = program.rows_of_channels(last, channels)
    kernel *= scale[lax.iota(jnp.int32, channels)][:, None]
    kernel = kernel.astype(output.dtype)

    def cotangent_fn(row: Array) -> Array:
        values = program.read_all(cotangent, row, channels)
        return factor * jnp.dot(values, kernel, preferred_element_type=program.sums)

    _walk_slopes(
        *(program, images, weights, image_bias, output, totals, size),
        cotangent_fn=cotangent_fn,
    )


def _transposed_kernel(
    cotangent, packed, output, totals, *, layout: Layout | Planes, size: tuple[int, int]
):
    program = layout.program(packed.dtype)
    weights = turned(program, packed, size)

    def row_fn(row: Array, window: list[Array], total: Array) -> Array:
        values = weighted(window, weights)
        program.write(output, row, values)
        # Beside the image there are values, too, in a program that is wider.
        return program.add(total, program.inside(row, values))

    total = program.walk_windows(cotangent, size, row_fn, program.zero_sum)
    program.write_total(totals, 0, 1, total)


def _layout(images: Array, target: Target) -> Layout | Planes:
    # Eight programs for each of 132 multiprocessors; two rows beside each program's
    # own are loaded by its neighbours, too.
    return target.layout(images, 4, min_programs=1056, min_rows=8)


def values(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"] | None = None,
    *,
    has_gelu: bool = True,
    target: Target = GPU,
) -> Float[Array, "batch height width channels"]:
    """Return ``gelu(conv(images + image_bias) + bias)``, or what is inside ``gelu``.

    Args:
      images: Feature maps, of less than 2^31 values.
      kernel: One filter per channel; both sizes odd.
      bias: Added before the GELU.
      image_bias: None: 0.
      has_gelu: Whether there is one.
      target: The platform.
    """
    biases = (bias,) if image_bias is None else (bias, image_bias)
    (output,) = _layout(images, target).call(
        _value_kernel,
        "depthwise_gelu" if has_gelu else "depthwise",
        [jax.ShapeDtypeStruct(images.shape, images.dtype)],
        images,
        pack(images.dtype, kernel, *biases),
        size=kernel.shape[:2],
        has_image_bias=image_bias is not None,
        has_gelu=has_gelu,
    )
    return output


def gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"] | None = None,
    *,
    target: Target = GPU,
) -> tuple[
    Float[Array, "batch height width channels"], Float[Array, "batch _ channels"]
]:
    """Return gradients of `values` by what the GELU sees, and by taps and bias.

    Args:
      images: See `values`, as for the others.
      cotangent: Gradient by the result.
      kernel: See `values`.
      bias: See `values`.
      image_bias: See `values`.
      target: See `values`.

    Returns:
      The gradient by the convolution's result; and each image's part of those by the
      taps, row by row, and the bias: [batch, taps + 1, channels].
    """
    layout = _layout(images, target)
    count = math.prod(kernel.shape[:2]) + 1
    biases = (bias,) if image_bias is None else (bias, image_bias)
    return _with_totals(
        _gradient_kernel,
        "depthwise_gelu_gradient",
        layout,
        count,
        images,
        cotangent,
        pack(images.dtype, kernel, *biases),
        size=kernel.shape[:2],
        has_image_bias=image_bias is not None,
    )


# With more channels behind the MLP a program would read them, and its part of the last
# kernel, too often for what it saves.
_MOST_JOINED = 128


def joins(images: Array, last: Float[Array, "channels features"]) -> bool:
    """Return whether there is a kernel for `joined_gradients`."""
    channels, features = last.shape
    is_small = features <= _MOST_JOINED and features & (features - 1) == 0
    # Tensor cores take 16 columns and 16 channels.
    return is_small and features >= 16 and channels % 32 == 0 and images.shape[2] > 8


def joined_gradients(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width features"],
    factors: Float[Array, "batch branches"],
    last: Float[Array, "channels features"],
    scale: Float[Array, " features"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"],
    *,
    branch: int,
    interpret: bool = False,
) -> tuple[
    Float[Array, "batch height width channels"], Float[Array, "batch _ channels"]
]:
    """Return `gradients` for the cotangent ``factor * (scale * g) @ transposed(last)``.

    The product is one of tensor cores, row by row, and never in memory.

    Args:
      images: See `values`.
      cotangent: g.
      factors: Of each image.
      last: Kernel of the 1x1 convolution behind.
      scale: Of each of its features.
      kernel: See `values`.
      bias: See `values`.
      image_bias: See `values`.
      branch: Which of the factors it is.
      interpret: Run on any platform, slowly: for tests.
    """
    layout = make_layout(
        images.shape,
        4,
        min_programs=1056,
        min_rows=8,
        interpret=interpret,
        most_channels=32,
    )
    return _with_totals(
        _joined_gradient_kernel,
        "depthwise_gelu_joined_gradient",
        layout,
        math.prod(kernel.shape[:2]) + 1,
        *(images, cotangent, factors, last, scale),
        pack(images.dtype, kernel, bias, image_bias),
        size=kernel.shape[:2],
        sizes=(last.shape[1], factors.shape[1]),
        branch=branch,
    )


def transposed(
    cotangent: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"],
    image_bias: Float[Array, " channels"],
    *,
    target: Target = GPU,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch channels"]]:
    """Return the gradient of a convolution by its images, and each image's sum of it.

    Args:
      cotangent: Gradient by the convolution's result.
      kernel: See `values`, as for the others.
      bias: See there.
      image_bias: See there.
      target: See there.
    """
    output, totals = _with_totals(
        _transposed_kernel,
        "depthwise_transposed",
        _layout(cotangent, target),
        1,
        cotangent,
        pack(cotangent.dtype, kernel, bias, image_bias),
        size=kernel.shape[:2],
    )
    return output, totals[:, 0]


def _with_totals(
    kernel, name: str, layout: Layout | Planes, count: int, *arrays, **options
):
    """Return maps like the images, and the sums of each image's programs."""
    images = arrays[0]
    batch, _, _, channels = images.shape
    totals = (batch, layout.programs_of_image, count, channels)
    outputs = [
        jax.ShapeDtypeStruct(images.shape, images.dtype),
        jax.ShapeDtypeStruct(totals, sum_type(images.dtype)),
    ]
    output, parts = layout.call(kernel, name, outputs, *arrays, **options)
    return output, jnp.sum(parts, axis=1)
