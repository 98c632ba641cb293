"""Triton kernels of 1x1 convolutions, with what stands before and behind them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from segnext_jax.ops.gelu import gelu_value
from segnext_jax.ops.kernels.row_program import sum_type

# Rows of a product's block, or of one turn of a sum over pixels.
_ROWS, _SUMMED = 128, 64
# Four programs for each of 132 multiprocessors.
_MIN_PROGRAMS = 528


class Maps(NamedTuple):
    """What `product` reads of each pixel; None: 0 where it is added, 1 elsewhere.

    Attributes:
      images: [batch, height, width, channels].
      times: Multiplied with the images.
      factors: Of each image's results, [batch, branches].
      gate: Multiplied with the result, as are the following [..., features].
      second: Multiplied with ``slope``, and added.
      shortcut: Added last.
    """

    images: Array
    times: Array | None = None
    factors: Array | None = None
    gate: Array | None = None
    second: Array | None = None
    shortcut: Array | None = None


class Weights(NamedTuple):
    """What all pixels share.

    Attributes:
      kernel: [channels, features]; turned: [features, channels].
      gain: Multiplied with the images, [channels].
      shift: Added behind it, [channels].
      result_gain: Multiplied with the product, [features], as are the following.
      bias: Added to it.
      slope: See `Maps.second`.
      scale: Multiplied with all this.
    """

    kernel: Array
    gain: Array | None = None
    shift: Array | None = None
    result_gain: Array | None = None
    bias: Array | None = None
    slope: Array | None = None
    scale: Array | None = None


class Options(NamedTuple):
    """What is done beside the product.

    Attributes:
      is_turned: See `Weights.kernel`.
      has_gelu: Whether the result passes a GELU.
      has_relu: Whether it passes a ReLU.
      branch: Which of the factors it is.
      adds_second: Whether ``second`` is the shortcut, too.
      keeps_linear: Whether what the GELU or the gate gets is a second result.
    """

    is_turned: bool = False
    has_gelu: bool = False
    has_relu: bool = False
    branch: int = 0
    adds_second: bool = False
    keeps_linear: bool = False


def takes(*channels: int) -> bool:
    """Return whether the kernels take so many channels: tensor cores take 16."""
    return all(count % 16 == 0 for count in channels)


def _block(channels: int, largest: int) -> int:
    return math.gcd(channels, largest)


def _load(ref, offsets: Array, mask: Array, dtype: Any = None) -> Array:
    return plgpu.load(ref.at[offsets], mask=mask, other=0.0).astype(dtype or ref.dtype)


def _grid(rows: Array, columns: Array) -> tuple[Array, Array]:
    shape = rows.size, columns.size
    return (
        lax.broadcast_in_dim(rows, shape, (0,)),
        lax.broadcast_in_dim(columns, shape, (1,)),
    )


def _span(start, size: int) -> Array:
    return start + lax.iota(jnp.int32, size)


def _of_branch(factors, rows: Array, sizes: tuple[int, ...], branch: int) -> Array:
    """Return where the factors of pixels are."""
    pixels, pixels_of_image, *_ = sizes
    branches = factors.shape[0] // (pixels // pixels_of_image)
    return rows // pixels_of_image * branches + branch


def _product_kernel(
    maps: Maps, weights: Weights, *outputs, sizes: tuple[int, ...], options: Options
):
    pixels, pixels_of_image, channels, features = sizes
    kind, sums = outputs[0].dtype, sum_type(outputs[0].dtype)
    step_size, width = _block(channels, 64), _block(features, 128)
    tiles = features // width
    rows = _span(pl.program_id(0) // tiles * _ROWS, _ROWS)
    own = _span(pl.program_id(0) % tiles * width, width)

    def step(number: Array, total: Array) -> Array:
        inner = _span(number * step_size, step_size)
        pixel, channel = _grid(rows, inner)
        place, inside = pixel * channels + channel, pixel < pixels
        values = _load(maps.images, place, inside)
        if maps.times is not None:
            values = values.astype(sums) * _load(maps.times, place, inside, sums)
        if weights.gain is not None:
            values = values.astype(sums) * weights.gain[inner][None].astype(sums)
        if weights.shift is not None:
            values = values.astype(sums) + weights.shift[inner][None].astype(sums)
        channel, feature = _grid(inner, own)
        if options.is_turned:
            place = feature * channels + channel
        else:
            place = channel * features + feature
        kernel = weights.kernel[place].astype(kind)
        return total + jnp.dot(values.astype(kind), kernel, preferred_element_type=sums)

    total = jnp.zeros((_ROWS, width), sums)
    total = lax.fori_loop(0, channels // step_size, step, total)

    def of_feature(ref) -> Array:
        return ref[own][None].astype(sums)

    pixel, feature = _grid(rows, own)
    place, inside = pixel * features + feature, pixel < pixels
    if weights.result_gain is not None:
        total *= of_feature(weights.result_gain)
    if weights.bias is not None:
        total += of_feature(weights.bias)
    second = jnp.zeros((), sums)
    if maps.second is not None:
        second = _load(maps.second, place, inside, sums)
        total += of_feature(weights.slope) * second
    if weights.scale is not None:
        total *= of_feature(weights.scale)
    if maps.factors is not None:
        place_of_image = _of_branch(maps.factors, rows, sizes, options.branch)
        total *= _load(maps.factors, place_of_image, rows < pixels, sums)[:, None]
    result = gelu_value(total) if options.has_gelu else total
    if options.has_relu:
        result = jnp.maximum(result, 0)
    if maps.gate is not None:
        result *= _load(maps.gate, place, inside, sums)
    if options.adds_second:
        result += second
    if maps.shortcut is not None:
        result += _load(maps.shortcut, place, inside, sums)
    for ref, values in zip(outputs, (result, total), strict=False):
        plgpu.store(ref.at[place], values.astype(ref.dtype), mask=inside)


def product(
    maps: Maps, weights: Weights, *, options: Options, interpret: bool = False
) -> list[Float[Array, "batch height width features"]]:
    """Return a product with what stands before and behind it, rounded once.

    ``shortcut + gate * gelu(factors * scale * (result_gain * ((times * images * gain +
    shift) @ kernel) + bias + slope * second))``, in the type of the images; `Options`
    say what there is of this, or instead.

    Args:
      maps: Of less than 2^31 values each.
      weights: Of any types.
      options: See there.
      interpret: Run on any platform, slowly: for tests.
    """
    images = maps.images
    *dims, channels = images.shape
    features = weights.kernel.shape[0 if options.is_turned else 1]
    pixels = math.prod(dims)
    width = _block(features, 128)
    count = pixels * features
    shapes = [jax.ShapeDtypeStruct((count,), images.dtype)]
    flat = [jax.tree.map(lambda a: a.reshape(-1), tree) for tree in (maps, weights)]
    results = pl.pallas_call(
        lambda *refs: _product_kernel(
            *refs,
            sizes=(pixels, math.prod(dims[1:]), channels, features),
            options=options,
        ),
        out_shape=shapes * (2 if options.keeps_linear else 1),
        grid=(pl.cdiv(pixels, _ROWS) * (features // width),),
        compiler_params=plgpu.CompilerParams(
            num_warps=8 if width > 64 else 4, num_stages=3
        ),
        interpret=interpret,
        name="pointwise",
    )(*flat)
    return [result.reshape(*dims, features) for result in results]


class Summed(NamedTuple):
    """What `pixel_sums` reads of each pixel.

    Attributes:
      images: x, [batch, height, width, channels].
      cotangent: g, [batch, height, width, features].
      times: Multiplied with g; None: 1, as is the next.
      factors: Of each image, multiplied with g, [batch, branches].
      beside: y, [batch, height, width, features]; None: not asked for.
    """

    images: Array
    cotangent: Array
    times: Array | None = None
    factors: Array | None = None
    beside: Array | None = None


def _sums_kernel(
    maps: Summed,
    centres: tuple,
    output,
    *,
    sizes: tuple[int, ...],
    pixels_of_part: int,
    branch: int,
):
    pixels, _, channels, features, num_rows = sizes
    kind, sums = maps.images.dtype, output.dtype
    height, width = _block(channels, 128), _block(features, 128)
    tiles = features // width
    tile = pl.program_id(0)
    left, upper = tile % tiles, tile // tiles
    channel, feature = _span(upper * height, height), _span(left * width, width)
    centre, centre_beside = centres
    start = pl.program_id(1) * pixels_of_part
    end = jnp.minimum(start + pixels_of_part, pixels)

    def step(number: Array, totals: tuple) -> tuple:
        rows = _span(start + number * _SUMMED, _SUMMED)
        pixel, place = _grid(rows, channel)
        place += pixel * channels
        values = _load(maps.images, place, pixel < end)
        if centre is not None:
            values = values.astype(sums) - centre[channel][None].astype(sums)
        pixel, place = _grid(rows, feature)
        place += pixel * features
        inside = pixel < end
        wide = _load(maps.cotangent, place, inside, sums)
        if maps.times is not None:
            wide *= _load(maps.times, place, inside, sums)
        if maps.factors is not None:
            place_of_image = _of_branch(maps.factors, rows, sizes, branch)
            wide *= _load(maps.factors, place_of_image, rows < end, sums)[:, None]
        product = lax.dot_general(
            values.astype(kind),
            wide.astype(kind),
            (((0,), (0,)), ((), ())),
            preferred_element_type=sums,
        )
        results = [totals[0] + product, totals[1] + jnp.sum(wide, axis=0)]
        if maps.beside is not None:
            # Others than the first tile's programs have no use for it.
            beside = _load(maps.beside, place, inside & (upper == 0), sums)
            beside -= centre_beside[feature][None].astype(sums)
            results.append(totals[2] + jnp.sum(wide * beside, axis=0))
        return tuple(results)

    line = jnp.zeros((width,), sums)
    totals = (jnp.zeros((height, width), sums), *[line] * (num_rows - channels))
    totals = lax.fori_loop(0, pl.cdiv(pixels_of_part, _SUMMED), step, totals)
    first = pl.program_id(1) * num_rows
    row, column = _grid(channel, feature)
    plgpu.store(output.at[(first + row) * features + column], totals[0])
    for number, total in enumerate(totals[1:]):
        place = (first + channels + number) * features + feature
        mask = jnp.broadcast_to(upper == 0, place.shape)
        plgpu.store(output.at[place], total, mask=mask)


def pixel_sums(
    maps: Summed,
    centre: Float[Array, " channels"] | None,
    centre_beside: Float[Array, " features"] | None,
    *,
    branch: int = 0,
    interpret: bool = False,
) -> Float[Array, "rows features"]:
    """Return sums over all pixels, row by row.

    With h = times * factors * g: of ``(x - centre) h`` for each channel and feature; of
    h; and of ``(y - centre_beside) h`` where there is y.

    Args:
      maps: Of less than 2^31 values each.
      centre: None: 0.
      centre_beside: None if there is no y.
      branch: Which of the factors it is.
      interpret: Run on any platform, slowly: for tests.
    """
    *dims, channels = maps.images.shape
    features = maps.cotangent.shape[-1]
    pixels = math.prod(dims)
    num_rows = channels + (1 if maps.beside is None else 2)
    blocks = _block(channels, 128), _block(features, 128)
    tiles = (channels // blocks[0]) * (features // blocks[1])
    parts = max(1, min(_MIN_PROGRAMS // tiles, pl.cdiv(pixels, 4 * _SUMMED)))
    pixels_of_part = pl.cdiv(pl.cdiv(pixels, parts), _SUMMED) * _SUMMED
    parts = pl.cdiv(pixels, pixels_of_part)
    sizes = pixels, math.prod(dims[1:]), channels, features, num_rows
    flat = [
        jax.tree.map(lambda a: a.reshape(-1), tree)
        for tree in (maps, (centre, centre_beside))
    ]
    totals = pl.pallas_call(
        lambda *refs: _sums_kernel(
            *refs, sizes=sizes, pixels_of_part=pixels_of_part, branch=branch
        ),
        out_shape=jax.ShapeDtypeStruct(
            (parts * num_rows * features,), sum_type(maps.images.dtype)
        ),
        grid=(tiles, parts),
        compiler_params=plgpu.CompilerParams(
            num_warps=8 if math.prod(blocks) > 64 * 128 else 4, num_stages=3
        ),
        interpret=interpret,
        name="pixel_sums",
    )(*flat)
    return jnp.sum(totals.reshape(parts, num_rows, features), axis=0)
