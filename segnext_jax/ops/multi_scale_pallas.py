"""The multi-scale attention as one kernel for NVIDIA GPUs, with its gradient."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array, Float

from segnext_jax.ops import multi_scale_gradients as gradients
from segnext_jax.ops import multi_scale_kernels as kernels
from segnext_jax.ops.multi_scale_composed import (
    Weights,
    multi_scale_composed,
    num_pairs,
)
from segnext_jax.ops.pallas_program import Layout, Sizes, Tile

# A lane's pixels: 16, so that of 103 multiply-adds per value each 16 share a weight,
# and a row strip needs (4 + 20) / 4 loads per value. Sums over column strips take
# (20 + 4) x 4 registers; compiled for sm_90 a lane has all of its 255 and spills none,
# and with 128 lanes two programs share an SM. Half the rows: 233.
ROWS_AT_ONCE = 4
COLUMNS_AT_ONCE = 4
NUM_WARPS = 4
# In the gradients of the weights, where a lane keeps a sum for each tap.
GRADIENT_ROWS_AT_ONCE = 1
# A tile has the whole width where that leaves it this many channels (32 bytes in
# float32, what a cache moves at once): beside another tile, it computes the 5x5 of
# 12 columns to each side again.
MIN_CHANNELS = 8
# Programs that fill 132 SMs once. Where images and channels make fewer, their rows are
# split; a piece of fewer rows than MIN_ROWS would compute more rows of neighbours
# (2 x 10) than of its own.
MIN_PROGRAMS = 132
MIN_ROWS = 32


def default_tile(shape: tuple[int, ...]) -> Tile:
    """Return the tile for images on an H100 or H200, by arithmetic: not measured.

    Args:
      shape: Batch, height, width, channels.

    >>> tuple(default_tile((16, 128, 128, 64)))
    (128, 64, 8, 4, 4, 4)
    >>> tuple(default_tile((16, 16, 16, 256)))
    (16, 16, 32, 4, 4, 4)
    """
    batch, height, width, channels = shape
    lanes = 32 * NUM_WARPS
    groups = _power_of_two(-(-width // COLUMNS_AT_ONCE))
    groups = min(groups, lanes // MIN_CHANNELS)
    tile_channels = min(lanes // groups, _power_of_two(channels))
    columns = groups * COLUMNS_AT_ONCE
    programs = batch * -(-width // columns) * -(-channels // tile_channels)
    rows = height
    while programs < MIN_PROGRAMS and rows >= 2 * MIN_ROWS:
        rows, programs = -(-rows // 2), programs * 2
    num_warps = max(1, groups * tile_channels // 32)
    return Tile(rows, columns, tile_channels, ROWS_AT_ONCE, COLUMNS_AT_ONCE, num_warps)


def _power_of_two(number: int) -> int:
    """Round up."""
    return 1 << (number - 1).bit_length()


def multi_scale_fused(
    images: Float[Array, "batch height width channels"],
    weights: Weights,
    *,
    interpret: bool = False,
    tile: Tile | None = None,
) -> Float[Array, "batch height width channels"]:
    """Return ``d + sum_i column_i(row_i(d))``, ``d = conv0(images)``, by one kernel.

    Reads the images once and writes the result once. Sums are float32 at least, d and
    the strips' sums are not rounded in between. The gradient takes four kernels and one
    for each strip pair; second derivatives are those of composed convolutions. Where
    devices share a batch, XLA cannot divide a kernel, and each computes all of it.

    Args:
      images: Feature maps, of less than 2^31 values.
      weights: ``conv0`` (odd sizes), and ``conv{i}_1`` (1xk), ``conv{i}_2`` (kx1) for
        each strip pair i, any number of them, k odd.
      interpret: Run the kernel's program as ordinary operations, slowly, on any
        platform: for tests.
      tile: What one program computes; None: `default_tile`.

    Raises:
      ValueError: If a kernel has another shape, the tile is not one that Triton can
        express, or the images are too large; when compiled, if the platform is not
        CUDA.

    Source: ``AttentionModule`` in ``mscan.py`` of SegNeXt@c87bcae; paper, equation 1.
    Differs: d and the row strips' results are not rounded to bfloat16 between
      convolutions.
    """
    if images.size >= 2**31:
        raise ValueError(
            "the fused kernel counts values in 32 bits, so images must have less than "
            f"2^31 values: got {images.shape}. Use smaller batches."
        )
    tile = default_tile(images.shape) if tile is None else tile
    _check_tile(tile)
    layout = Layout(images.shape, _sizes(weights), tile, interpret)
    return _fused(layout, images, dict(weights))


def _check_tile(tile: Tile) -> None:
    groups, rest = divmod(tile.columns, tile.columns_at_once)
    ok = min(tile) > 0 and not rest
    ok = ok and all(n & (n - 1) == 0 for n in (groups, tile.channels, tile.num_warps))
    if not ok:
        raise ValueError(
            "a tile's sizes must be at least 1, and columns / columns_at_once, "
            f"channels and num_warps powers of two, for Triton: got {tile}."
        )


def _sizes(weights: Weights) -> Sizes:
    """Return the sizes of all kernels, whose shapes are checked."""
    pairs = range(num_pairs(weights))
    shapes = {name: kernel.shape[:2] for name, (kernel, _) in weights.items()}
    rows = tuple(shapes[f"conv{index}_1"] for index in pairs)
    columns = tuple(shapes[f"conv{index}_2"] for index in pairs)
    sizes = Sizes(
        shapes["conv0"], tuple(w for _, w in rows), tuple(h for h, _ in columns)
    )
    is_strips = all(h == 1 for h, _ in rows) and all(w == 1 for _, w in columns)
    is_odd = all(n % 2 for n in (*sizes.square, *sizes.rows, *sizes.columns))
    if not (is_strips and is_odd):
        raise ValueError(
            "kernels of the multi-scale attention must have odd sizes, 1xk for "
            f"conv<i>_1 and kx1 for conv<i>_2: got {shapes}."
        )
    return sizes


def _names(sizes: Sizes) -> list[str]:
    """Return the convolutions in the order in which they are packed."""
    pairs = range(len(sizes.rows))
    return ["conv0", *(f"conv{index}_{half}" for index in pairs for half in (1, 2))]


def _pack(weights: Weights, layout: Layout, dtype: jnp.dtype) -> Array:
    """Return all taps and biases, [taps, channels], rounded to the images' type.

    Kept in the type of the sums: a lane would convert each tap for each of its uses.
    """
    parts = []
    for name in _names(layout.sizes):
        kernel, bias = weights[name]
        parts += [kernel.reshape(-1, kernel.shape[-1]), bias[None]]
    sums = jnp.promote_types(dtype, jnp.float32)
    return jnp.concatenate([part.astype(dtype).astype(sums) for part in parts])


def _unpack(packed: Array, weights: Weights, layout: Layout) -> dict:
    """Return the parts of packed gradients in the shapes and types of the weights."""
    result, index = {}, 0
    for name in _names(layout.sizes):
        kernel, bias = weights[name]
        taps = kernel.shape[0] * kernel.shape[1]
        result[name] = (
            packed[index : index + taps].reshape(kernel.shape).astype(kernel.dtype),
            packed[index + taps].astype(bias.dtype),
        )
        index += taps + 1
    return result


def _transposed(weights: Weights) -> dict:
    """Return weights of the transposed convolutions: kernels turned, no biases."""
    return {
        name: (kernel[::-1, ::-1], jnp.zeros_like(bias))
        for name, (kernel, bias) in weights.items()
    }


def _on_cuda(function, layout: Layout, *arrays: Array) -> Any:
    """Apply a function, if only to be compiled for CUDA or interpreted."""
    if layout.interpret:
        return function(*arrays)
    shapes, tree = jax.tree.flatten(jax.eval_shape(function, *arrays))
    outputs = tuple(ShapedArray(shape.shape, shape.dtype) for shape in shapes)

    def refuse(*arrays: Array):
        return tree.unflatten(_refuse_p.bind(*arrays, outputs=outputs))

    return lax.platform_dependent(*arrays, cuda=function, default=refuse)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(layout: Layout, images: Array, weights: dict) -> Array:
    packed = _pack(weights, layout, images.dtype)
    function = functools.partial(kernels.attention, layout=layout, has_square=True)
    return _on_cuda(function, layout, images, packed)


def _fused_forward(layout: Layout, images: Array, weights: dict):
    return _fused(layout, images, weights), (images, weights)


def _fused_backward(layout: Layout, residuals, cotangent: Array) -> Any:
    return _gradients(layout, *residuals, cotangent)


_fused.defvjp(_fused_forward, _fused_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradients(layout: Layout, images: Array, weights: dict, cotangent: Array):
    """Return the gradients by images and weights.

    With zero padding a row strip and a column strip can be exchanged, but not a strip
    and the 5x5. So ``g_d = g + sum_i row_i'(column_i'(g))``, the transposed
    convolutions, is the forward kernel without its first part, with all kernels turned;
    and the 5x5's transpose comes after it.
    """

    def compute(images: Array, cotangent: Array, packed: Array, turned: Array):
        local = kernels.square(images, packed, layout)
        by_local = kernels.attention(cotangent, turned, layout, has_square=False)
        by_images = kernels.square(by_local, turned, layout)
        one = dataclasses.replace(
            layout, tile=layout.tile._replace(rows_at_once=GRADIENT_ROWS_AT_ONCE)
        )
        sizes = Sizes(layout.sizes.square, (), ())
        parts = [
            gradients.square_gradients(
                images, by_local, dataclasses.replace(one, sizes=sizes)
            )
        ]
        start = sizes.total
        for lengths in zip(layout.sizes.rows, layout.sizes.columns, strict=True):
            sizes = Sizes((0, 0), lengths[:1], lengths[1:])
            pair = packed[start : start + sizes.total]
            start += sizes.total
            parts.append(
                gradients.pair_gradients(
                    local, cotangent, pair, dataclasses.replace(one, sizes=sizes)
                )
            )
        return by_images, jnp.concatenate(parts, axis=2)

    packed = _pack(weights, layout, images.dtype)
    turned = _pack(_transposed(weights), layout, images.dtype)
    by_images, parts = _on_cuda(compute, layout, images, cotangent, packed, turned)
    return by_images, _unpack(jnp.sum(parts, axis=(0, 1)), weights, layout)


def _gradients_forward(layout: Layout, *arguments):
    return _gradients(layout, *arguments), arguments


def _gradients_backward(layout: Layout, arguments, cotangents):
    """Second derivatives, which training has no use for: of the composition."""

    def composed_gradients(images: Array, weights: dict, cotangent: Array):
        return jax.vjp(multi_scale_composed, images, weights)[1](cotangent)

    return jax.vjp(composed_gradients, *arguments)[1](cotangents)


_gradients.defvjp(_gradients_forward, _gradients_backward)


# An operation that no platform has: so it is refused when a program is compiled for a
# platform, not when it is traced. A machine without a GPU can compile for one.
_refuse_p = Primitive("multi_scale_without_cuda")
_refuse_p.multiple_results = True


@_refuse_p.def_abstract_eval
def _refused(*arrays, outputs):
    return outputs


def _raise(*_, **__):
    raise ValueError(
        "the fused multi-scale attention is a kernel for NVIDIA GPUs, and this program "
        'is compiled for another platform. Set config.model.depthwise to "shifted", or '
        "call multi_scale_fused(..., interpret=True) to test the kernel."
    )


mlir.register_lowering(_refuse_p, _raise)
