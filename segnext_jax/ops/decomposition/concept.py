"""Concept decomposition (spherical k-means and ridge regression): the third ham."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from segnext_jax.ops.decomposition.iteration import iterated, length, product
from segnext_jax.ops.decomposition.vq import (
    SMALLEST_LENGTH,
    choose,
    cluster_means,
    draw_bases,
    unit,
)

__all__ = ["RIDGE", "draw_bases", "reconstruct"]

# Weight of the squared coefficients (BETA in ham.py).
RIDGE = 0.1


def reconstruct(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    *,
    num_steps: int,
    gradient: str = "full",
) -> Float[Array, "batch positions channels"]:
    """Return the ridge regression of each position on ``rank`` concepts.

    With X [positions, channels], D the concepts (of length 1) and C [positions, rank]:

        num_steps times:
            C = softmax(t cos(X, D));  D = XᵀC / (sum of C over positions + eps);
            D = D / |D|
        C = X D (DᵀD + beta I)⁻¹;  return C Dᵀ

    where t is `vq.SHARPNESS` and beta `RIDGE`. Computed in float32 at least, as in
    `nmf.reconstruct`.

    Args:
      inputs: One row per position.
      bases: Starting concepts of length 1; see `draw_bases`.
      num_steps: Number of updates; 6 in training, 7 at inference.
      gradient: See `decomposition.iterated`.

    Returns:
      The reconstruction, in the type of ``inputs``.

    Raises:
      ValueError: If ``gradient`` is unknown.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text data using
    clustering", 2001; Geng et al., "Is attention better than matrix decomposition?",
    ICLR 2021; ``CD2D`` in ``seg/HamNet/hamburger/ham.py`` of Enjoy-Hamburger.
    Differs: a Cholesky solve in place of the explicit inverse.
    """
    dtype = inputs.dtype
    working = jnp.promote_types(dtype, jnp.float32)
    inputs, bases = inputs.astype(working), bases.astype(working)
    constant_inputs, bases = iterated((inputs, bases), gradient)
    directions = constant_inputs / length(constant_inputs, 2, SMALLEST_LENGTH)
    for _ in range(num_steps):
        bases = unit(cluster_means(constant_inputs, choose(directions, bases)))
    coefficients = _regress(inputs, bases)
    return product("bnr,bdr->bnd", coefficients, bases).astype(dtype)


def _regress(inputs: Array, bases: Array) -> Array:
    gram = product("bdr,bds->brs", bases, bases)
    gram = gram + RIDGE * jnp.eye(bases.shape[-1], dtype=bases.dtype)[None]
    # Symmetric, eigenvalues between RIDGE and RIDGE + rank: well conditioned.
    factor = lax.linalg.cholesky(gram)
    products = product("bnd,bdr->brn", inputs, bases)
    solution = jax.scipy.linalg.cho_solve((factor, True), products)
    return jnp.swapaxes(solution, 1, 2)
