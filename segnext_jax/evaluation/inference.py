"""From logits at 1/8 of the network's input to labels at the size of the image."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from segnext_jax.ops.resize import resize_bilinear


def predict_labels(
    logits: Float[Array, "batch small_height small_width classes"],
    network_size: tuple[int, int],
    image_size: tuple[int, int],
) -> Int[Array, "batch height width"]:
    """Return the best class of each pixel of the original image.

    Logits are resized twice, to the network's input and then to the image, as the
    official code does; where the two sizes are equal the second is left out.

    Args:
      logits: Scores in float32.
      network_size: (height, width) of the network's input.
      image_size: (height, width) of the original image.

    Source: ``encode_decode``, ``whole_inference`` and ``simple_test`` in
    ``mmseg/models/segmentors/encoder_decoder.py`` of SegNeXt@c87bcae.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logits = resize_bilinear(logits, network_size)
    logits = resize_bilinear(logits, image_size)
    return jnp.argmax(logits, axis=-1)
