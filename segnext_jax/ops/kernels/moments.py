"""Triton kernels that sum over pixels: a batch normalisation's sums in one pass."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.kernels.row_program import (
    Layout,
    make_layout,
    sum_type,
)


def _moments_kernel(images, totals, *, layout: Layout):
    program = layout.program(totals.dtype)

    def add(row: Array, total: Array) -> Array:
        return total + program.read(images, row)

    total = program.sum(program.walk(add, program.zero))
    rows = (program.bottom - program.top).astype(program.sums)
    mean = total / (program.num_columns.astype(program.sums) * rows)

    def add_square(row: Array, total: Array) -> Array:
        deviation = program.inside(row, program.read(images, row) - mean)
        return total + deviation * deviation

    # The program's pixels again, which are few, from the cache: the sum of squares
    # around their own mean does not cancel, whatever the mean.
    program.write_total(totals, 0, 2, mean, is_sum=True)
    program.write_total(totals, 1, 2, program.walk(add_square, program.zero))


def _slopes_kernel(images, cotangent, mean, totals, *, layout: Layout):
    program = layout.program(totals.dtype)
    mean = program.weight(mean, 0)

    def add(row: Array, sums: list[Array]) -> list[Array]:
        slope = program.read(cotangent, row)
        return [sums[0] + slope, sums[1] + slope * (program.read(images, row) - mean)]

    for index, total in enumerate(program.walk(add, [program.zero] * 2)):
        program.write_total(totals, index, 2, total)


def _layout(images: Array, interpret: bool) -> Layout:
    # Enough programs that what each reads twice stays in a first-level cache.
    return make_layout(
        images.shape, 4, min_programs=2112, min_rows=4, interpret=interpret
    )


def _call(kernel, name: str, layout: Layout, *arrays: Array) -> Array:
    batch, _, _, channels = layout.shape
    totals = jax.ShapeDtypeStruct(
        (batch, layout.programs_of_image, 2, channels), sum_type(arrays[0].dtype)
    )
    return layout.call(kernel, name, [totals], *arrays)[0]


def moments(
    images: Float[Array, "batch height width channels"], *, interpret: bool = False
) -> Float[Array, "batch 2 channels"]:
    """Return the mean of each image's pixels, and the sum of squares around it.

    Each value is read once, and squares are summed around means of some hundred pixels,
    joined by the formula of Chan et al.: as exact as two passes.

    Args:
      images: Feature maps, of less than 2^31 values.
      interpret: Run on any platform, slowly: for tests.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.
    """
    layout = _layout(images, interpret)
    parts = _call(_moments_kernel, "moments", layout, images)
    means, squares = parts[:, :, 0], parts[:, :, 1]
    counts = _counts(layout).astype(parts.dtype)[None, :, None]
    size = images.shape[1] * images.shape[2]
    return jnp.stack(joined(means, squares, counts, size, axis=1), axis=1)


def joined(
    means: Array, squares: Array, counts: Array | int, size: int, axis: int
) -> tuple[Array, Array]:
    """Return the mean of all parts, and the sum of squares around it.

    One kernel computes both, since no sum waits for another: squares of means are taken
    around the first part's, m_0, whose distance to the mean m counts n_0 (m_0 - m)^2 in
    the result, too. So what cancels is at most size / n_0 times the result.

    Args:
      means: Of each part.
      squares: The part's sums of squares around its mean.
      counts: Number of pixels of each part.
      size: Of all parts.
      axis: The axis of the parts.
    """
    first = lax.slice_in_dim(means, 0, 1, axis=axis)
    away = means - first
    shift = jnp.sum(counts * away, axis) / size
    around_first = jnp.sum(squares + counts * jnp.square(away), axis)
    return jnp.squeeze(first, axis) + shift, around_first - size * jnp.square(shift)


def _counts(layout: Layout) -> Array:
    """Return the number of pixels of each of an image's programs, rows first.

    The numbers are computed inside the program, because a part that is divided by
    images (`per_image`) can have no constants.
    """
    _, height, width, _ = layout.shape
    number = lax.iota(jnp.int32, layout.programs_of_image)
    row, column = number // layout.grid[1], number % layout.grid[1]
    rows = jnp.minimum(layout.rows, height - layout.rows * row)
    return rows * jnp.minimum(layout.columns, width - layout.columns * column)


def slopes(
    images: Float[Array, "batch height width channels"],
    cotangent: Float[Array, "batch height width channels"],
    mean: Float[Array, " channels"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch 2 channels"]:
    """Return each image's sums of g and of g (x - mean).

    Args:
      images: x.
      cotangent: g.
      mean: In the type of the sums.
      interpret: See `moments`.
    """
    layout = _layout(images, interpret)
    arrays = images, cotangent, mean
    return jnp.sum(_call(_slopes_kernel, "slopes", layout, *arrays), axis=1)
