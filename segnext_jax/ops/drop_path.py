"""Stochastic depth: drop residual branches for whole images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


def drop_path_factors(
    rates: Sequence[float], batch: int, key: PRNGKeyArray
) -> Float[Array, "branches batch"]:
    """Return what each branch of each image is multiplied by.

    0 with the probability of its rate; otherwise ``1 / (1 - rate)``, so that the mean
    stays. Drawn for all branches at once: a draw for each is two kernels on a GPU.

    Args:
      rates: One for each branch, in [0, 1).
      batch: Number of images.
      key: The key of all draws.

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016;
    ``DropPath`` of timm, used in ``mscan.py`` of SegNeXt@c87bcae.
    """
    keep = jnp.asarray(1 - np.asarray(rates), jnp.float32)[:, None]
    kept = jax.random.bernoulli(key, jnp.broadcast_to(keep, (len(rates), batch)))
    return kept / keep
