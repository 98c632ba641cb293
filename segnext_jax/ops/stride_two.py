"""3x3 convolution of stride 2, padding 1: as one matrix product on CPUs."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.pointwise import add_bias

# With fewer channels XLA's own convolution is faster; XLA's gradients never are. With
# more channels XLA's convolution is slower where it follows a LayerNorm, which XLA:CPU
# then computes inside the convolution.
_MIN_CHANNELS = 32
_PLACES = [(row, column) for row in range(3) for column in range(3)]


def stride_two_conv(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 channels features"],
    bias: Float[Array, " features"],
) -> Float[Array, "batch new_height new_width features"]:
    """Convolve at every second row and column, with zeros around the images.

    ``out[b, y, x] = bias + sum_ij images[b, 2 y + i - 1, 2 x + j - 1] @ kernel[i, j]``,
    with half the height and half the width, rounded up.

    On a CPU the function lays the nine pixels of each window side by side and takes one
    matrix product. The gradients then take about half the time of XLA's (`--what=ops`
    of the benchmark). Where images have few channels, XLA's convolution gives the
    values, and the matrix product the gradients. On other devices XLA gives both.

    Args:
      images: Feature maps.
      kernel: Converted to the type of ``images``.
      bias: Added to the result.

    Source: ``StemConv`` and ``OverlapPatchEmbed`` in ``mscan.py`` of SegNeXt@c87bcae
    (padding 1 on all sides; 'SAME' pads even sizes unevenly).
    """
    output = _conv(images, kernel.astype(images.dtype))
    return add_bias(output, bias)


@jax.custom_vjp
def _conv(images: Array, kernel: Array) -> Array:
    if images.shape[-1] < _MIN_CHANNELS:
        return _library(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=_product, default=_library)


def _forward(images: Array, kernel: Array):
    return _conv(images, kernel), (images, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array):
    def by_library(images: Array, kernel: Array, cotangent: Array):
        return jax.vjp(_library, images, kernel)[1](cotangent)

    return lax.platform_dependent(
        *residuals, cotangent, cpu=_product_gradients, default=by_library
    )


_conv.defvjp(_forward, _backward)


def _library(images: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(2, 2),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(images: Array) -> Array:
    """Return [batch * new_height * new_width, 9 * channels]."""
    batch, height, width, channels = images.shape
    new_height, new_width = (height + 1) // 2, (width + 1) // 2
    pads = (
        (0, 0),
        (1, 2 * new_height + 1 - height),
        (1, 2 * new_width + 1 - width),
        (0, 0),
    )
    # Rows and columns in pairs, so that every second row or column is a slice.
    pairs = lax.optimization_barrier(jnp.pad(images, pads))
    pairs = pairs.reshape(batch, new_height + 1, 2, new_width + 1, 2, channels)
    parts = [
        pairs[
            :,
            row // 2 : row // 2 + new_height,
            row % 2,
            column // 2 : column // 2 + new_width,
            column % 2,
        ]
        for row, column in _PLACES
    ]
    return jnp.concatenate(parts, axis=-1).reshape(-1, 9 * channels)


def _product(images: Array, kernel: Array) -> Array:
    batch, height, width, _ = images.shape
    features = kernel.shape[-1]
    output = jnp.dot(_windows(images), kernel.reshape(-1, features))
    return output.reshape(batch, (height + 1) // 2, (width + 1) // 2, features)


def _product_gradients(
    images: Array, kernel: Array, cotangent: Array
) -> tuple[Array, Array]:
    batch, height, width, channels = images.shape
    _, new_height, new_width, features = cotangent.shape
    rows = cotangent.reshape(-1, features)
    kernel_gradient = lax.dot_general(
        _windows(images),
        rows,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(images.dtype, jnp.float32),
    )
    windows = lax.dot_general(
        rows, kernel.reshape(-1, features), (((1,), (1,)), ((), ()))
    ).reshape(batch, new_height, new_width, 9, channels)

    def part(row: int, column: int) -> Array:
        """Return the gradient of the pairs from one place in the windows."""
        top, left = row // 2, column // 2
        pads = ((0, 0), (top, 1 - top), (left, 1 - left), (0, 0))
        return jnp.pad(windows[:, :, :, 3 * row + column], pads)

    # The first row of a pair is the last row of one window and the first row of the
    # next. The second row is the middle row of one window. The same holds for columns.
    places = ((0, 2), (1,))
    pairs = jnp.stack(
        [
            jnp.stack(
                [
                    sum(part(row, column) for row in ys for column in xs)
                    for xs in places
                ],
                axis=3,
            )
            for ys in places
        ],
        axis=2,
    )
    padded = pairs.reshape(batch, 2 * new_height + 2, 2 * new_width + 2, channels)
    images_gradient = padded[:, 1 : height + 1, 1 : width + 1]
    return images_gradient, kernel_gradient.reshape(kernel.shape).astype(kernel.dtype)
