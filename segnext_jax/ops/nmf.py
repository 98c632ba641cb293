"""Non-negative matrix factorisation by multiplicative updates: the Hamburger's ham."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

# Keeps the denominators of the updates away from zero (NMF2D in ham_head.py).
EPSILON = 1e-6
GRADIENTS = ("full", "one_step")

# TPUs and tensor cores multiply float32 matrices in fewer bits unless told not to; the
# updates divide by such products.
product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def draw_bases(
    key: PRNGKeyArray, batch: int, channels: int, rank: int, dtype=jnp.float32
) -> Float[Array, "batch channels rank"]:
    """Draw starting bases: uniform in [0, 1), each of unit length over the channels.

    Source: ``NMF2D._build_bases`` in ``mmseg/models/decode_heads/ham_head.py`` of
    SegNeXt@c87bcae.
    """
    bases = jax.random.uniform(key, (batch, channels, rank), dtype)
    length = jnp.sqrt(jnp.sum(jnp.square(bases), axis=1, keepdims=True))
    return bases / jnp.maximum(length, 1e-12)


def reconstruct(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    *,
    num_steps: int,
    gradient: str = "full",
) -> Float[Array, "batch positions channels"]:
    """Return the low-rank reconstruction of non-negative ``inputs``.

    With X [positions, channels], D the bases and C [positions, rank] the coefficients:

        C = softmax(X D);
        num_steps times:
            C = C * X D / (C DᵀD + eps);  D = D * XᵀC / (D CᵀC + eps)
        C = C * X D / (C DᵀD + eps);  return C Dᵀ

    Everything is computed in float32 (float64 for float64 inputs), whatever the type of
    ``inputs``: products and quotients of sums over all positions do not fit bfloat16.

    Args:
      inputs: Values of at least 0, one row per position.
      bases: Starting bases, at least 0; see `draw_bases`.
      num_steps: Number of double updates; 6 in training, 7 at inference.
      gradient: ``"full"``: through all steps, as in the official code. ``"one_step"``:
        bases and coefficients before the last update of the coefficients count as
        constants, as in JSeg. That takes less memory and time, and the gradient neither
        grows nor fades over the steps.

    Returns:
      The reconstruction, in the type of ``inputs``.

    Raises:
      ValueError: If ``gradient`` is unknown.

    Source: Geng et al., "Is attention better than matrix decomposition?", ICLR 2021;
    ``NMF2D`` in ``mmseg/models/decode_heads/ham_head.py`` of SegNeXt@c87bcae.
    """
    if gradient not in GRADIENTS:
        raise ValueError(
            f"the gradient of the NMF must be one of {', '.join(GRADIENTS)}: got "
            f"{gradient!r}."
        )
    dtype = inputs.dtype
    working = jnp.promote_types(dtype, jnp.float32)
    inputs, bases = inputs.astype(working), bases.astype(working)
    constant_inputs = inputs
    if gradient == "one_step":
        constant_inputs, bases = lax.stop_gradient((inputs, bases))
    scores = product("bnd,bdr->bnr", constant_inputs, bases)
    coefficients = jax.nn.softmax(scores, axis=-1)

    # A Python loop, not lax.scan: six steps of small products compile quickly, and
    # XLA:CPU runs an unrolled step faster than a loop body with copied carries.
    for _ in range(num_steps):
        coefficients = _update_coefficients(constant_inputs, bases, coefficients)
        bases = _update_bases(constant_inputs, bases, coefficients)
    coefficients = _update_coefficients(inputs, bases, coefficients)
    return product("bnr,bdr->bnd", coefficients, bases).astype(dtype)


def _update_coefficients(inputs: Array, bases: Array, coefficients: Array) -> Array:
    numerator = product("bnd,bdr->bnr", inputs, bases)
    gram = product("bdr,bds->brs", bases, bases)
    denominator = product("bnr,brs->bns", coefficients, gram)
    return coefficients * numerator / (denominator + EPSILON)


def _update_bases(inputs: Array, bases: Array, coefficients: Array) -> Array:
    numerator = product("bnd,bnr->bdr", inputs, coefficients)
    gram = product("bnr,bns->brs", coefficients, coefficients)
    denominator = product("bdr,brs->bds", bases, gram)
    return bases * numerator / (denominator + EPSILON)
