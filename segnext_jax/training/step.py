"""One training step: distort, forward, loss, backward, update."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from segnext_jax.ops import losses, photometric
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.training.state import TrainState

StepFn = Callable[[TrainState, dict[str, Any]], tuple[TrainState, dict[str, Any]]]

# One named stream of random numbers for each use, so that a new use leaves the draws of
# the others as they were.
STREAMS = ("photometric", "drop_path", "dropout", "nmf", "grey")


def step_keys(seed: int, step: Array) -> dict[str, Array]:
    """Return a key per stream: a function of seed, step and name alone."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(STREAMS)}


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    use_photometric: bool,
    grey_probability: float,
    ignore_label: int,
    loss_average: str,
) -> StepFn:
    """Return ``(state, batch) -> (state, metrics)``, to be jitted by the caller.

    Args:
      model: `segnext_jax.models.segnext.SegNeXt`.
      optimizer: See `segnext_jax.training.optimizer.adamw`.
      seed: Of all random draws of the step.
      mean: RGB mean of images, in grey levels.
      std: RGB standard deviation of images, in grey levels.
      use_photometric: Whether to distort colours.
      grey_probability: Of turning an image to grey, after that.
      ignore_label: Label of pixels that take no part in the loss.
      loss_average: See `segnext_jax.ops.losses.cross_entropy`.

    The batch holds ``image`` (uint8 RGB), ``label`` (uint8 train ids) of one size, and
    ``size`` (int32 height, width of what is not padding).
    Metrics are float32 scalars: ``loss``, ``accuracy`` (share of labelled pixels) and
    ``gradient_norm``.
    """

    def train_step(state: TrainState, batch: dict[str, Any]):
        keys = step_keys(seed, state.step)
        images = batch["image"]
        if use_photometric:
            images = photometric.distort(images, keys["photometric"])
        if grey_probability:
            images = images.astype(jnp.float32)
            images = photometric.drop_colour(images, keys["grey"], grey_probability)
        images = photometric.normalize(images, mean, std)
        images = photometric.clear_padding(images, batch["size"])

        def loss_fn(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs=keys,
            )
            loss, accuracy = _loss_and_accuracy(
                logits, batch["label"], ignore_label, loss_average
            )
            return loss, (accuracy, updates["batch_stats"])

        (loss, (accuracy, batch_stats)), gradients = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer_state, state.params
        )
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            optimizer_state=optimizer_state,
        )
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "gradient_norm": _norm(gradients),
        }
        return state, metrics

    return train_step


def _norm(tree: Any) -> Float[Array, ""]:
    """Return the Euclidean norm of all values of a tree."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _loss_and_accuracy(
    logits: Float[Array, "batch small_height small_width classes"],
    labels: UInt8[Array, "batch height width"],
    ignore_label: int,
    average: str,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compare logits with labels at the size of the labels, in float32."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logits = resize_bilinear(logits, labels.shape[1:])
    loss = losses.cross_entropy(
        logits, labels, ignore_label=ignore_label, average=average
    )
    is_valid = labels != ignore_label
    is_hit = (jnp.argmax(logits, axis=-1) == labels) & is_valid
    accuracy = jnp.sum(is_hit) / jnp.maximum(jnp.sum(is_valid), 1)
    return loss, accuracy
