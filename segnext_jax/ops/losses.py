"""Losses of logits against label maps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8


def cross_entropy(
    logits: Float[Array, "batch height width classes"],
    labels: Int[Array, "batch height width"] | UInt8[Array, "batch height width"],
    *,
    ignore_label: int = 255,
    average: str = "all",
) -> Float[Array, ""]:
    """Return the mean softmax cross-entropy; ignored pixels contribute 0.

    Computed in float32 at least: it sums 2^18 pixels and more.

    Args:
      logits: Scores before softmax, at the size of the labels.
      labels: Train ids in [0, classes), or ``ignore_label``. Other values are excluded
        by the input pipeline; here they would count as a class with probability 0.
      ignore_label: The id that takes no part.
      average: ``"all"`` divides by the number of all pixels, as the official code
        does; ``"valid"`` by the number of labelled pixels.

    Raises:
      ValueError: If ``average`` is neither of the two.

    Source: ``CrossEntropyLoss`` (``avg_non_ignore=False``) in
    ``mmseg/models/losses/cross_entropy_loss.py`` of SegNeXt@c87bcae.
    """
    if average not in ("all", "valid"):
        raise ValueError(f"average must be 'all' or 'valid': got {average!r}.")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    labels = labels.astype(jnp.int32)
    is_valid = labels != ignore_label
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    # A comparison and a sum, not a gather: its gradient is a broadcast, not a scatter.
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    is_label = labels[..., None] == classes[None, None, None]
    score = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
    total = jnp.sum(jnp.where(is_valid, normaliser - score, 0))
    count = labels.size if average == "all" else jnp.maximum(jnp.sum(is_valid), 1)
    return total / jnp.asarray(count, total.dtype)
