"""Batch normalisation with PyTorch's running statistics; layer normalisation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.batch_norm import Normalized, normalize
from segnext_jax.ops.layer_norm import layer_norm

# Collection of the moments of a batch, which `update_statistics` takes.
MOMENTS = "batch_moments"


class BatchNorm(nn.Module):
    """Normalise each channel over batch and pixels.

    In training ``y = (x - mean) / sqrt(var + epsilon) * scale + bias`` with the mean
    and biased variance of the batch. Under `jax.jit` over a mesh XLA computes both over
    the whole sharded batch: the batch normalisation is synchronised between devices.

    The running statistics (collection ``batch_stats``: ``mean``, ``var``) follow
    ``new = decay * old + (1 - decay) * batch`` and are used when ``train`` is false.

    A frozen BatchNorm uses the running statistics in training, too, and does not change
    them.

    Where the collection `MOMENTS` is mutable, the BatchNorm writes ``mean``, the biased
    ``var`` and ``count`` of the batch there and leaves the running statistics alone.

    Statistics are float32 at least, whatever the compute type.

    Source: ``SyncBN`` of the official configs; ``torch.nn.BatchNorm2d``.
    Differs: from `flax.linen.BatchNorm`, whose running variance is biased; PyTorch
    keeps the unbiased one (times n / (n - 1)).
    """

    epsilon: float = 1e-5
    # PyTorch's momentum 0.1 weighs the new value; this weighs the old one.
    decay: float = 0.9
    is_frozen: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        train: bool,
        then: Callable[..., tuple[Any, Normalized]] | None = None,
    ) -> Any:
        """Return the normalised images in ``dtype``.

        Args:
          images: Feature maps.
          train: Use the moments of the batch.
          then: Takes what `normalize` takes, and returns a result, which is returned
            with the second, and how images were normalised.
        """
        batch, height, width, channels = images.shape
        shape = (channels,)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, shape, self.param_dtype
        )
        running_var = self.variable(
            "batch_stats", "var", jnp.ones, shape, self.param_dtype
        )
        images = images.astype(self.dtype)
        is_batch = train and not self.is_frozen
        scale, bias = jnp.asarray(scale), jnp.asarray(bias)
        moments = None
        if not is_batch:
            moments = jnp.asarray(running_mean.value), jnp.asarray(running_var.value)
        arguments = images, scale, bias, moments, self.epsilon
        if then is None:
            normalized = normalize(*arguments)
            result = normalized.output
        else:
            result = then(*arguments)
            normalized = result[1]
        if is_batch and not self.is_initializing():
            mean, var = normalized.mean, normalized.var
            count = batch * height * width
            unbiased = var * (count / max(count - 1, 1))
            if self.is_mutable_collection(MOMENTS):
                self._leave("mean", mean)
                self._leave("var", var)
                self._leave("count", jnp.asarray(count, var.dtype))
            else:
                self._update(running_mean, mean)
                self._update(running_var, unbiased)
        return result

    def _leave(self, name: str, value: Array) -> None:
        value = lax.stop_gradient(value)
        self.sow(
            MOMENTS, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: value
        )

    def _update(self, running: nn.Variable, value: Array) -> None:
        value = lax.stop_gradient(value).astype(running.value.dtype)
        running.value = self.decay * running.value + (1 - self.decay) * value


class LayerNorm(nn.Module):
    """Normalise the channels of each pixel, with PyTorch's epsilon."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return the normalised images in ``dtype``."""
        shape = images.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        return layer_norm(images.astype(self.dtype), scale, bias, 1e-5)


def update_statistics(
    running: dict[str, Any], moments: dict[str, Any], decay: float = BatchNorm.decay
) -> dict[str, Any]:
    """Move running statistics once, towards the moments of several parts of a batch.

    All k parts have n values per channel. With the means m_i and biased variances v_i
    of the parts, the whole batch has

        mean = mean_i(m_i),  var = mean_i(v_i + (m_i - mean)^2)

    and the running variance follows the unbiased variance, var * k n / (k n - 1).

    Args:
      running: ``batch_stats`` of a network.
      moments: Its collection `MOMENTS`, each array stacked over the parts.
      decay: See `BatchNorm`.

    Returns:
      The new ``batch_stats``. A frozen BatchNorm writes no moments, and its statistics
      stay.
    """
    stats = traverse_util.flatten_dict(running)
    parts = traverse_util.flatten_dict(moments)
    for *norm, name in parts:
        if name != "mean":
            continue
        means, variances, counts = (
            parts[*norm, key] for key in ("mean", "var", "count")
        )
        mean = jnp.mean(means, axis=0)
        # Not E[x^2] - E[x]^2, which cancels where the mean is large.
        var = jnp.mean(variances + jnp.square(means - mean[None]), axis=0)
        count = jnp.sum(counts)
        batch = {"mean": mean, "var": var * (count / jnp.maximum(count - 1, 1))}
        for key, value in batch.items():
            old = stats[*norm, key]
            stats[*norm, key] = decay * old + (1 - decay) * value.astype(old.dtype)
    return traverse_util.unflatten_dict(stats)
