"""From logits at 1/8 of the network's input to the size of the image."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segnext_jax.ops.resize import resize_bilinear


def resize_logits(
    logits: Float[Array, "batch small_height small_width classes"],
    network_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Float[Array, "batch height width classes"]:
    """Return the scores of each pixel of the original image, in float32.

    Logits are resized twice, to the network's input and then to the image, as the
    official code does; where the two sizes are equal the second is left out.

    Args:
      logits: Scores as the network gives them.
      network_size: (height, width) of the network's input.
      image_size: (height, width) of the original image.

    Source: ``encode_decode`` and ``whole_inference`` in
    ``mmseg/models/segmentors/encoder_decoder.py`` of SegNeXt@c87bcae.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logits = resize_bilinear(logits, network_size)
    return resize_bilinear(logits, image_size)


def predict_labels(
    logits: Float[Array, "batch small_height small_width classes"],
    network_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Int[Array, "batch height width"]:
    """Return the best class of each pixel; see `resize_logits`."""
    return jnp.argmax(resize_logits(logits, network_size, image_size), axis=-1)


def predict_probabilities(
    logits: Float[Array, "batch small_height small_width classes"],
    network_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Float[Array, "batch height width classes"]:
    """Return the softmax scores of each pixel; see `resize_logits`."""
    return jax.nn.softmax(resize_logits(logits, network_size, image_size), axis=-1)
