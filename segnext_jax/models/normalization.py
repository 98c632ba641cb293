"""Batch normalisation with PyTorch's running statistics."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Normalise each channel over batch and pixels.

    In training ``y = (x - mean) / sqrt(var + epsilon) * scale + bias`` with the mean
    and biased variance of the batch. Under `jax.jit` over a mesh these are the
    statistics of the whole sharded batch: synchronised batch normalisation without
    code for it.

    The running statistics (collection ``batch_stats``: ``mean``, ``var``) follow
    ``new = decay * old + (1 - decay) * batch`` and are used when ``train`` is false.

    Statistics are float32 at least, whatever the compute type.

    Source: ``SyncBN`` of the official configs; ``torch.nn.BatchNorm2d``.
    Differs: from `flax.linen.BatchNorm`, whose running variance is biased; PyTorch
    keeps the unbiased one (times n / (n - 1)).
    """

    epsilon: float = 1e-5
    # PyTorch's momentum 0.1 weighs the new value; this weighs the old one.
    decay: float = 0.9
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Return the normalised images in ``dtype``."""
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
        if train:
            values = images.astype(jnp.promote_types(images.dtype, jnp.float32))
            mean = jnp.mean(values, axis=(0, 1, 2))
            # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
            var = jnp.mean(jnp.square(values - mean[None, None, None]), axis=(0, 1, 2))
            if not self.is_initializing():
                count = batch * height * width
                unbiased = var * (count / max(count - 1, 1))
                self._update(running_mean, mean)
                self._update(running_var, unbiased)
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * gain
        gain, shift = gain.astype(self.dtype), shift.astype(self.dtype)
        output = images.astype(self.dtype) * gain[None, None, None]
        return output + shift[None, None, None]

    def _update(self, running: nn.Variable, value: Array) -> None:
        value = lax.stop_gradient(value).astype(running.value.dtype)
        running.value = self.decay * running.value + (1 - self.decay) * value
