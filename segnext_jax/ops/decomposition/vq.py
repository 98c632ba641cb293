"""Soft vector quantisation: the Hamburger's second ham."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from segnext_jax.ops.decomposition.iteration import iterated, length, product

# Inverse temperature of the assignment (INV_T in ham.py).
SHARPNESS = 100.0
# Keeps cluster sizes and lengths away from zero (VQ2D in ham.py).
EPSILON = 1e-6
# Floor of torch.nn.functional.normalize.
SMALLEST_LENGTH = 1e-12


def draw_bases(
    key: PRNGKeyArray, batch: int, channels: int, rank: int, dtype=jnp.float32
) -> Float[Array, "batch channels rank"]:
    """Draw starting bases: normal, each of unit length over the channels.

    Source: ``VQ2D._build_bases`` in ``seg/HamNet/hamburger/ham.py`` of
    Enjoy-Hamburger.
    """
    bases = jax.random.normal(key, (batch, channels, rank), dtype)
    return bases / length(bases, 1, SMALLEST_LENGTH)


def reconstruct(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    *,
    num_steps: int,
    gradient: str = "full",
) -> Float[Array, "batch positions channels"]:
    """Return each position as a soft choice among ``rank`` cluster centres.

    With X [positions, channels], D the centres and C [positions, rank] the choice:

        num_steps times:
            C = softmax(t cos(X, D));  D = XᵀC / (sum of C over positions + eps)
        C = softmax(t cos(X, D));  return C Dᵀ

    where t is `SHARPNESS`. Computed in float32 at least, as in `nmf.reconstruct`.

    Args:
      inputs: One row per position.
      bases: Starting centres; see `draw_bases`.
      num_steps: Number of double updates; 6 in training, 7 at inference.
      gradient: See `decomposition.iterated`.

    Returns:
      The reconstruction, in the type of ``inputs``.

    Raises:
      ValueError: If ``gradient`` is unknown.

    Source: Geng et al., "Is attention better than matrix decomposition?", ICLR 2021
    (soft VQ); ``VQ2D`` in ``seg/HamNet/hamburger/ham.py`` of
    Enjoy-Hamburger.
    Differs: the official code cuts the gradient of the inputs' length in the last
    choice; here only ``"one_step"`` does, and ``"full"`` is the true derivative.
    """
    dtype = inputs.dtype
    working = jnp.promote_types(dtype, jnp.float32)
    inputs, bases = inputs.astype(working), bases.astype(working)
    constant_inputs, bases = iterated((inputs, bases), gradient)
    directions = constant_inputs / length(constant_inputs, 2, SMALLEST_LENGTH)
    for _ in range(num_steps):
        bases = cluster_means(constant_inputs, choose(directions, unit(bases)))

    size = length(inputs, 2, SMALLEST_LENGTH)
    if gradient == "one_step":
        size = lax.stop_gradient(size)
    coefficients = choose(inputs / (size + EPSILON), unit(bases))
    return product("bnr,bdr->bnd", coefficients, bases).astype(dtype)


def unit(
    bases: Float[Array, "batch channels rank"],
) -> Float[Array, "batch channels rank"]:
    """Return bases of length 1 over the channels."""
    return bases / length(bases, 1, EPSILON)


def choose(
    directions: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
) -> Float[Array, "batch positions rank"]:
    """Return each position's weights over the bases, which sum to 1."""
    cosines = product("bnd,bdr->bnr", directions, bases)
    return jax.nn.softmax(SHARPNESS * cosines, axis=-1)


def cluster_means(
    inputs: Float[Array, "batch positions channels"],
    weights: Float[Array, "batch positions rank"],
) -> Float[Array, "batch channels rank"]:
    """Return the mean of the inputs under each column of weights."""
    weights = weights / (jnp.sum(weights, axis=1, keepdims=True) + EPSILON)
    return product("bnd,bnr->bdr", inputs, weights)
