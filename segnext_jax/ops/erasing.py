"""Random erasing: a rectangle of each image replaced by noise."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Defaults of timm's RandomErasing: shares of the image's area, and height over width.
AREA_RANGE = (0.02, 1 / 3)
ASPECT_RANGE = (0.3, 1 / 0.3)
NUM_TRIES = 10


def inside(
    boxes: Int[Array, "batch 4"], size: tuple[int, ...]
) -> Bool[Array, "batch height width"]:
    """Tell which pixels lie in each image's box (top, bottom, left, right)."""
    top, bottom, left, right = (column[:, None] for column in boxes.T)
    rows = jnp.arange(size[0], dtype=boxes.dtype)[None]
    columns = jnp.arange(size[1], dtype=boxes.dtype)[None]
    is_row = (rows >= top) & (rows < bottom)
    is_column = (columns >= left) & (columns < right)
    return is_row[:, :, None] & is_column[:, None, :]


def draw_boxes(
    key: PRNGKeyArray, batch: int, size: tuple[int, ...], probability: float
) -> Int[Array, "batch 4"]:
    """Draw a box (top, bottom, left, right) for each image; an empty one for none.

    Area uniform in `AREA_RANGE`, logarithm of the aspect ratio uniform in that of
    `ASPECT_RANGE`, place uniform; drawn again, up to ten times, if a side is as long as
    the image's.

    Args:
      key: The key of all draws.
      batch: Number of images.
      size: (height, width) in pixels.
      probability: That an image gets a box.
    """
    height, width = size
    area_key, aspect_key, top_key, left_key, chance_key = jax.random.split(key, 5)
    tries = (batch, NUM_TRIES)
    low, high = AREA_RANGE
    area = jax.random.uniform(area_key, tries, minval=low, maxval=high) * height * width
    low, high = map(math.log, ASPECT_RANGE)
    aspect = jnp.exp(jax.random.uniform(aspect_key, tries, minval=low, maxval=high))
    # Half to the even number, as Python's round.
    heights = jnp.rint(jnp.sqrt(area * aspect)).astype(jnp.int32)
    widths = jnp.rint(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    box_height = jnp.take_along_axis(heights, first, axis=1)[:, 0]
    box_width = jnp.take_along_axis(widths, first, axis=1)[:, 0]
    top = _uniform_below(top_key, height - box_height + 1)
    left = _uniform_below(left_key, width - box_width + 1)
    is_erased = jax.random.bernoulli(chance_key, probability, (batch,))
    is_erased &= jnp.any(fits, axis=1)
    boxes = jnp.stack([top, top + box_height, left, left + box_width], axis=1)
    return jnp.where(is_erased[:, None], boxes, 0)


def _uniform_below(
    key: PRNGKeyArray, limits: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """Draw integers in [0, limit); a limit below 1, which is not used, gives 0."""
    limits = jnp.maximum(limits, 1)
    return jax.random.randint(key, limits.shape, 0, limits, jnp.int32)


def erase(
    images: Float[Array, "batch height width channels"],
    key: PRNGKeyArray,
    probability: float,
) -> Float[Array, "batch height width channels"]:
    """Replace a box of each image by normal noise, with a probability.

    Args:
      images: Normalised, so that the noise (mean 0, deviation 1) is like them.
      key: The key of the boxes and the noise.
      probability: For each image.

    Source: Zhong et al., "Random erasing data augmentation", AAAI 2020;
    ``RandomErasing(mode="pixel")`` of timm 0.4.12.
    """
    if probability == 0:
        return images
    box_key, noise_key = jax.random.split(key)
    boxes = draw_boxes(box_key, images.shape[0], images.shape[1:3], probability)
    noise = jax.random.normal(noise_key, images.shape, images.dtype)
    return jnp.where(inside(boxes, images.shape[1:3])[..., None], noise, images)
