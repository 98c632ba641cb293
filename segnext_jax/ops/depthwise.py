"""Depthwise convolution as a sum of shifted products, with its own gradient.

SegNeXt spends its time in depthwise convolutions (5x5, 3x3 and the strips 1x7 to
21x1). XLA lowers a grouped convolution with one channel per group poorly: on two CPU
cores a 1x21 strip over 1x128x128x32 takes 30 ms as a grouped convolution and 0.9 ms
as a sum of 21 shifted products. The sum is one fused loop, contiguous over channels.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

# "auto": operations that join convolutions with more have kernels of our own for GPUs
# and TPUs (ops/multi_scale.py, ops/depthwise_gelu.py). Everything else is as "shifted".
Implementation = Literal["auto", "shifted", "grouped"]


def depthwise_conv(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    bias: Float[Array, " channels"] | None = None,
    *,
    implementation: Implementation = "auto",
) -> Float[Array, "batch height width channels"]:
    """Convolve every channel with its own kernel, stride 1, zero padding, same size.

    ``out[b, y, x, c] = bias[c] + sum_ij images[b, y + i - ph, x + j - pw, c] *
    kernel[i, j, c]`` with ``ph = kernel_height // 2``, ``pw = kernel_width // 2``.

    Args:
      images: Feature maps, any float type.
      kernel: One filter per channel; both sizes odd.
      bias: Added to the result, or None.
      implementation: ``"shifted"`` sums shifted products and has derivatives of its
        own, of all orders, forward and reverse; ``"grouped"`` is
        ``lax.conv_general_dilated`` with one group per channel, the form that
        exporters understand; ``"auto"`` is ``"shifted"`` here.

    Returns:
      Feature maps of the size and type of ``images``.

    Raises:
      ValueError: If the shapes do not fit, a kernel size is even or the implementation
        is unknown.

    Source: ``DWConv`` and ``AttentionModule`` in
    ``mmseg/models/backbones/mscan.py`` of SegNeXt@c87bcae
    (``Conv2d(dim, dim, k, padding=k // 2, groups=dim)``).
    """
    if kernel.ndim != 3:
        raise ValueError(
            f"depthwise kernels are [height, width, channels]: got {kernel.shape}. "
            "Take the middle out of a grouped convolution's: kernel[:, :, 0]."
        )
    kernel_height, kernel_width, channels = kernel.shape
    if images.ndim != 4 or images.shape[3] != channels:
        raise ValueError(
            "images must be [batch, height, width, channels], with the channels of the "
            f"depthwise kernel: got {images.shape} and kernel {kernel.shape}."
        )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(
            f"a depthwise bias is [channels], here ({channels},): got {bias.shape}."
        )
    if kernel_height % 2 == 0 or kernel_width % 2 == 0:
        raise ValueError(
            "depthwise kernels must have odd sizes, or 'same' padding is ambiguous: "
            f"got {kernel_height}x{kernel_width}. Use the next odd size."
        )
    kernel = kernel.astype(images.dtype)
    if implementation in ("auto", "shifted"):
        output = _shifted(images, kernel)
    elif implementation == "grouped":
        output = _grouped(images, kernel)
    else:
        raise ValueError(
            "depthwise implementation must be one of 'auto', 'shifted', 'grouped': "
            f"got {implementation!r}."
        )
    if bias is None:
        return output
    return output + bias.astype(images.dtype)[None, None, None]


def _grouped(images: Array, kernel: Array) -> Array:
    height, width, channels = kernel.shape
    return lax.conv_general_dilated(
        images,
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding=((height // 2, height // 2), (width // 2, width // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Sums run in float32 at least: up to 25 terms, or all pixels in a gradient."""
    return jnp.promote_types(dtype, jnp.float32)


# Bytes after which an address falls on the same lines of a first-level cache (32 KiB of
# 8 ways and more): taller kernels than there are ways evict what the next pixel needs.
_CACHE_PERIOD_BYTES = 4096
_CACHE_WAYS = 8


def pad(
    images: Float[Array, "batch height width channels"], rows: int, columns: int
) -> Float[Array, "batch padded_height padded_width channels"]:
    """Add rows and columns of zeros on all sides, in an array of its own.

    Tall windows get one more column on the right where rows would lie whole multiples
    of 4 KiB apart: 21x1 over 1x64x64x64 takes 0.46 ms instead of 1.20.

    The barrier keeps XLA from reading the middle tap of a kernel from the unpadded
    images, whose whole computation it would then fuse into that tap, a second time.
    """
    spare = 0
    _, _, width, channels = images.shape
    if 2 * rows + 1 > _CACHE_WAYS and isinstance(width, int):
        row_bytes = (width + 2 * columns) * channels * images.dtype.itemsize
        spare = 0 if row_bytes % _CACHE_PERIOD_BYTES else 1
    pads = ((0, 0), (rows, rows), (columns, columns + spare), (0, 0))
    return lax.optimization_barrier(jnp.pad(images, pads))


def _sum_pixels(images: Array) -> Array:
    """Sum over rows and columns of each image: [batch, channels].

    On a CPU the sum is a product with a vector of ones. XLA:CPU would walk a reduction
    of the leading dimensions one channel at a time, and take 1.2 to 3 times as long.
    """

    def by_product(images: Array) -> Array:
        batch, height, width, channels = images.shape
        rows = images.reshape(batch, height * width, channels)
        ones = jnp.ones((batch, 1, height * width), rows.dtype)
        return jnp.matmul(ones, rows, precision=lax.Precision.HIGHEST)[:, 0]

    return lax.platform_dependent(
        images, cpu=by_product, default=lambda x: jnp.sum(x, axis=(1, 2))
    )


def sum_images(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, " channels"]:
    """Sum over all pixels of all images, in float32 at least."""
    sums = _accumulator(images.dtype)
    return jnp.sum(_sum_pixels(images.astype(sums)), axis=0)


# Functions below are jitted by themselves, so that a network that calls them a hundred
# times traces each shape once. XLA inlines them into the caller.
@functools.partial(jax.jit, static_argnames="size")
def windows_sum(
    padded: Float[Array, "batch padded_height padded_width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    size: tuple[Any, ...],
) -> Float[Array, "batch height width channels"]:
    """Return the sum of shifted products of images that have their padding already.

    JAX's own derivative of this function is slow; `depthwise_conv` has a faster rule.

    Args:
      padded: The images; see `pad`. What lies beyond the last window is not used.
      kernel: One filter per channel, of any size.
      size: (height, width) of the result.
    """
    kernel_height, kernel_width, _ = kernel.shape
    height, width = size
    sums = _accumulator(padded.dtype)
    output = None
    for i in range(kernel_height):
        for j in range(kernel_width):
            window = padded[:, i : i + height, j : j + width, :].astype(sums)
            product = window * kernel[i, j].astype(sums)[None, None, None]
            output = product if output is None else output + product
    assert output is not None  # Kernels have a tap at least.
    return output.astype(padded.dtype)


@functools.partial(jax.jit, static_argnames="kernel_shape")
def windows_gradient(
    padded: Float[Array, "batch padded_height padded_width channels"],
    cotangent: Float[Array, "batch height width channels"],
    kernel_shape: tuple[int, int, int],
) -> Float[Array, "kernel_height kernel_width channels"]:
    """Return the gradient of `windows_sum` for its kernel.

    The loop over taps sums over the pixels of each image. One sum over the images, for
    all taps, follows the loop. If the loop summed over images, devices that share a
    batch would exchange each tap's sum by itself, 70 times a block.

    The loop is not unrolled: unrolled, the compile time of SegNeXt-T's train step rises
    from 24 s to 60 s.
    """
    kernel_height, kernel_width, channels = kernel_shape
    sums = _accumulator(padded.dtype)
    cotangent = cotangent.astype(sums)
    rows, columns = np.indices((kernel_height, kernel_width), np.int32).reshape(2, -1)

    def tap(place: tuple[Array, Array]) -> Array:
        row, column = place
        zero = jnp.zeros_like(row)
        # Indices are never negative. Otherwise XLA tests the sign for each value of the
        # window.
        window = lax.dynamic_slice(
            padded,
            (zero, row, column, zero),
            cotangent.shape,
            allow_negative_indices=False,
        )
        return _sum_pixels(window.astype(sums) * cotangent)

    taps = lax.map(tap, (jnp.asarray(rows), jnp.asarray(columns)))
    return jnp.sum(taps, axis=1).reshape(kernel_shape).astype(padded.dtype)


@jax.jit
def _convolve(images: Array, kernel: Array) -> Array:
    height, width, _ = kernel.shape
    padded = pad(images, height // 2, width // 2)
    return windows_sum(padded, kernel, images.shape[1:3])


@functools.partial(jax.jit, static_argnames="size")
def _correlate(images: Array, cotangent: Array, *, size: tuple[int, int]) -> Array:
    """Return the gradient of `_convolve` for a kernel of a size."""
    # Computed for the kernel turned by 180 degrees: the gradient for the images pads
    # the cotangent, too.
    padded = pad(cotangent, size[0] // 2, size[1] // 2)
    shape = (*size, images.shape[3])
    return windows_gradient(padded, images, shape)[::-1, ::-1]


def _operation(name: str, function: Callable, shape_of: Callable) -> Primitive:
    """Return a function of two arrays as an operation of JAX without derivatives."""
    operation = Primitive(name)
    operation.def_impl(function)
    operation.def_abstract_eval(
        lambda first, second, **options: jax.core.ShapedArray(
            shape_of(first, second, **options), first.dtype
        )
    )
    mlir.register_lowering(operation, mlir.lower_fun(function, multiple_results=False))

    def batched(arrays: Any, axes: Any, **options: Any) -> tuple[Array, int]:
        return jax.vmap(functools.partial(function, **options), axes)(*arrays), 0

    batching.primitive_batchers[operation] = batched
    return operation


# Both are linear in each of their arrays, and each gives the other's gradients, so that
# derivatives of all orders and modes have the fast forms above. The transpose of a
# stride-1 'same' correlation with an odd kernel is the same with the kernel turned.
_convolve_p = _operation("depthwise_conv", _convolve, lambda x, _: x.shape)
_correlate_p = _operation(
    "depthwise_conv_kernel_gradient",
    _correlate,
    lambda x, _, *, size: (*size, x.shape[3]),
)
ad.defbilinear(
    _convolve_p,
    lambda cotangent, _, kernel: _shifted(cotangent, kernel[::-1, ::-1]),
    lambda cotangent, images, kernel: _correlate_p.bind(
        images, cotangent, size=kernel.aval.shape[:2]
    ),
)
ad.defbilinear(
    _correlate_p,
    lambda kernel, _, cotangent, size: _shifted(cotangent, kernel[::-1, ::-1]),
    lambda kernel, images, _, size: _shifted(images, kernel),
)


def _shifted(images: Array, kernel: Array) -> Array:
    return _convolve_p.bind(images, kernel)
