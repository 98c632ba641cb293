"""Stochastic depth: drop a residual branch for whole images."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray


def drop_path(
    branch: Float[Array, "batch height width channels"],
    rate: float,
    key: PRNGKeyArray,
) -> Float[Array, "batch height width channels"]:
    """Zero ``branch`` for each image with probability ``rate``; scale up the others.

    Kept images are divided by ``1 - rate``, so that the mean stays.

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016;
    ``DropPath`` of timm, used in ``mscan.py`` of SegNeXt@c87bcae.
    """
    keep = 1.0 - rate
    shape = (branch.shape[0], 1, 1, 1)
    kept = jax.random.bernoulli(key, keep, shape)
    return branch * (kept.astype(branch.dtype) / keep)
