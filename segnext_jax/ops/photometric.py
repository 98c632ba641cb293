"""Photometric distortion and normalisation, on the device, inside the train step.

Every operation keeps the 8-bit grid of the official code (which works on uint8 with
OpenCV), so that the distribution of the distorted images is the official one. Values
are float32 arrays that hold the integers 0..255.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

BRIGHTNESS_DELTA = 32.0
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18


def augment(
    images: UInt8[Array, "batch height width 3"],
    keys: dict[str, PRNGKeyArray],
    data: Any,
) -> UInt8[Array, "batch height width 3"] | Float[Array, "batch height width 3"]:
    """Change colours at random, as a configuration asks.

    Args:
      images: RGB, 0..255.
      keys: A key for each of the draws, by name.
      data: The section ``data`` of the configuration: ``photometric``,
        ``grey_probability``.
    """
    if data.photometric:
        images = distort(images, keys["photometric"])
    if data.grey_probability:
        images = images.astype(jnp.float32)
        images = drop_colour(images, keys["grey"], data.grey_probability)
    return images


def normalize(
    images: UInt8[Array, "batch height width 3"] | Float[Array, "batch height width 3"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Array, "batch height width 3"]:
    """Return ``(images - mean) / std`` in float32; RGB, 0..255 in, about -2..3 out."""
    offset, scale = (
        jnp.asarray(values, jnp.float32)[None, None, None] for values in (mean, std)
    )
    return (images.astype(jnp.float32) - offset) / scale


def clear_padding(
    images: Float[Array, "batch height width 3"], sizes: Int[Array, "batch 2"]
) -> Float[Array, "batch height width 3"]:
    """Return ``images`` with 0, the mean colour, below and to the right of ``sizes``.

    The official code pads after distortion and normalisation. Here padding comes first,
    on the host, and is cleared afterwards: the result is the same.

    Args:
      images: Normalised.
      sizes: (height, width) of what is not padding, for each image.
    """
    rows = jnp.arange(images.shape[1])[None, :] < sizes[:, :1]
    columns = jnp.arange(images.shape[2])[None, :] < sizes[:, 1:]
    is_image = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(is_image, images, jnp.zeros((), images.dtype))


def drop_colour(
    images: Float[Array, "batch height width 3"], key: PRNGKeyArray, probability: float
) -> Float[Array, "batch height width 3"]:
    """Turn each image to grey with a probability.

    Args:
      images: RGB, integers in 0..255.
      key: The key of all draws.
      probability: For each image.

    Returns:
      Images of the same shape; in grey ones all channels hold OpenCV's 8-bit luma.
    """
    is_grey = jax.random.bernoulli(key, probability, (images.shape[0], 1, 1, 1))
    # OpenCV's integers: 0.299, 0.587, 0.114 to 15 binary places.
    red, green, blue = jnp.moveaxis(images.astype(jnp.int32), -1, 0)
    luma = (9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15
    return jnp.where(is_grey, luma[..., None].astype(images.dtype), images)


def distort(
    images: UInt8[Array, "batch height width 3"], key: PRNGKeyArray
) -> Float[Array, "batch height width 3"]:
    """Distort brightness, contrast, saturation and hue of each image by its own draws.

    Each of the four is applied with probability 1/2, in the order brightness,
    contrast, saturation, hue, contrast, where contrast takes one of its two places
    with probability 1/2.

    Args:
      images: RGB, 0..255.
      key: Split into one key per image.

    Returns:
      RGB, float32 that holds integers in 0..255.

    Source: ``PhotoMetricDistortion`` in ``mmseg/datasets/pipelines/transforms.py`` of
    SegNeXt@c87bcae.
    """
    keys = jax.random.split(key, images.shape[0])
    return jax.vmap(_distort_one)(images.astype(jnp.float32), keys)


def _distort_one(image: Array, key: PRNGKeyArray) -> Array:
    chance_key, *keys = jax.random.split(key, 5)
    chances = jax.random.bernoulli(chance_key, 0.5, (5,))
    use_brightness, use_contrast, use_saturation, use_hue, contrast_first = chances
    offset = _uniform(keys[0], (-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA))
    contrast = _uniform(keys[1], CONTRAST_RANGE)
    saturation = _uniform(keys[2], SATURATION_RANGE)
    # NumPy's randint in the official code excludes the upper end: -18..17.
    hue = jax.random.randint(keys[3], (), -HUE_DELTA, HUE_DELTA, jnp.int32)

    image = jnp.where(use_brightness, adjust_brightness(image, offset), image)
    early = use_contrast & contrast_first
    image = jnp.where(early, adjust_contrast(image, contrast), image)
    image = jnp.where(use_saturation, adjust_saturation(image, saturation), image)
    image = jnp.where(use_hue, adjust_hue(image, hue), image)
    late = use_contrast & ~contrast_first
    return jnp.where(late, adjust_contrast(image, contrast), image)


def _uniform(key: PRNGKeyArray, bounds: tuple[float, float]) -> Array:
    return jax.random.uniform(key, (), jnp.float32, *bounds)


def _to_8bit(values: Array) -> Array:
    """Clip and truncate, as a cast from float to uint8 does after clipping."""
    return jnp.floor(jnp.clip(values, 0, 255))


def adjust_brightness(
    image: Float[Array, "height width 3"], offset: Float[Array, ""]
) -> Float[Array, "height width 3"]:
    """Add ``offset`` grey levels."""
    return _to_8bit(image + offset)


def adjust_contrast(
    image: Float[Array, "height width 3"], factor: Float[Array, ""]
) -> Float[Array, "height width 3"]:
    """Multiply by ``factor``."""
    return _to_8bit(image * factor)


def adjust_saturation(
    image: Float[Array, "height width 3"], factor: Float[Array, ""]
) -> Float[Array, "height width 3"]:
    """Multiply the saturation (of hue, saturation, value) by ``factor``."""
    hue, saturation, value = _rgb_to_hsv(image)
    return _hsv_to_rgb(hue, _to_8bit(saturation * factor), value)


def adjust_hue(
    image: Float[Array, "height width 3"], shift: Int[Array, ""]
) -> Float[Array, "height width 3"]:
    """Turn the hue by ``shift`` steps of 2 degrees."""
    hue, saturation, value = _rgb_to_hsv(image)
    return _hsv_to_rgb(jnp.mod(hue + shift, 180), saturation, value)


# OpenCV divides by multiplying with a rounded reciprocal of this many binary places.
_RECIPROCAL_BITS = 12


def _rgb_to_hsv(image: Array) -> tuple[Array, Array, Array]:
    """OpenCV's 8-bit HSV: hue 0..179 in steps of 2 degrees, the others 0..255.

    The function computes in OpenCV's fixed-point integers. Another rounding of the hue
    would shift a colour by up to 8 grey levels on the way back.
    """
    image = image.astype(jnp.int32)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.max(image, axis=-1)
    spread = value - jnp.min(image, axis=-1)
    saturation = _divide(255, spread, value)
    sector = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = _divide(30, sector, spread)
    hue = jnp.where(hue < 0, hue + 180, hue)
    return hue, saturation.astype(jnp.float32), value.astype(jnp.float32)


def _divide(factor: int, numerator: Array, denominator: Array) -> Array:
    """Return ``factor * numerator / denominator``, rounded; 0 for denominator 0."""
    scaled = factor << _RECIPROCAL_BITS
    divisor = jnp.maximum(denominator, 1)
    reciprocal = (2 * scaled + divisor) // (2 * divisor)
    half = 1 << (_RECIPROCAL_BITS - 1)
    quotient = (numerator * reciprocal + half) >> _RECIPROCAL_BITS
    return jnp.where(denominator > 0, quotient, 0)


def _hsv_to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
    def channel(corner: int) -> Array:
        position = jnp.mod(corner + hue.astype(jnp.float32) / 30, 6)
        weight = jnp.clip(jnp.minimum(position, 4 - position), 0, 1)
        return value * (1 - saturation / 255 * weight)

    rgb = jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
    # OpenCV's vector loop truncates. OpenCV rounds the columns that are left over at
    # the end of a row; this function does not.
    return jnp.floor(rgb)
