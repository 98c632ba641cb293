"""Non-negative matrix factorisation by multiplicative updates: the Hamburger's ham."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from segnext_jax.ops.kernels import nmf as kernels
from segnext_jax.ops.kernels.per_image import per_image
from segnext_jax.ops.platforms import by_platform, has_kernels_for

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


class Factors(NamedTuple):
    """A matrix of low rank: the coefficients times the transposed bases.

    Attributes:
      coefficients: [batch, positions, rank].
      bases: [batch, channels, rank].
    """

    coefficients: Array
    bases: Array


def factorize(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    *,
    num_steps: int,
    gradient: str = "full",
) -> Factors:
    """Return the factors of the low-rank reconstruction of non-negative ``inputs``.

    With X [positions, channels], D the bases and C [positions, rank] the coefficients:

        C = softmax(X D);
        num_steps times:
            C = C * X D / (C DᵀD + eps);  D = D * XᵀC / (D CᵀC + eps)
        C = C * X D / (C DᵀD + eps);  return C, D

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
      The factors, in float32 or float64.

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
    working = jnp.promote_types(inputs.dtype, jnp.float32)
    bases = bases.astype(working)
    if gradient == "full":
        # A custom derivative has no type that type checkers know.
        factors: Any = _factorize(inputs, bases, num_steps)
        return factors
    inputs = inputs.astype(working)
    constants = lax.stop_gradient((inputs, bases))
    bases, coefficients, _ = _iterate(*constants, num_steps, _no_probes(num_steps))
    numerator = product("bnd,bdr->bnr", inputs, bases)
    return Factors(_update_coefficients(numerator, bases, coefficients), bases)


def reconstruct(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    *,
    num_steps: int,
    gradient: str = "full",
) -> Float[Array, "batch positions channels"]:
    """Return the product of the factors, in the type of ``inputs``; see `factorize`."""
    coefficients, bases = factorize(
        inputs, bases, num_steps=num_steps, gradient=gradient
    )
    output = product("bnr,bdr->bnd", coefficients, bases)
    return output.astype(inputs.dtype)


class _Probes(NamedTuple):
    """Zeros that are added to the products with the inputs.

    Attributes:
      of_bases: To X D, two more than there are steps.
      of_coefficients: To transposed X times C.
    """

    of_bases: tuple
    of_coefficients: tuple


def _no_probes(num_steps: int) -> _Probes:
    return _Probes((0.0,) * (num_steps + 2), (0.0,) * num_steps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _factorize(inputs: Array, bases: Array, num_steps: int) -> Factors:
    _, channels, rank = bases.shape
    is_short = inputs.dtype.itemsize == 2
    if is_short and has_kernels_for(inputs) and kernels.takes(channels, rank):
        return by_platform(
            *(inputs, bases),
            default=_values,
            cuda=_values_by_kernels,
            num_steps=num_steps,
        )
    return _values(inputs, bases, num_steps=num_steps)


def _values(inputs: Array, bases: Array, *, num_steps: int) -> Factors:
    return _whole(inputs.astype(bases.dtype), bases, num_steps, _no_probes(num_steps))[
        0
    ]


def _values_by_kernels(inputs: Array, bases: Array, *, num_steps: int) -> Factors:
    update = functools.partial(kernels.coefficients, epsilon=EPSILON)
    divided = per_image(update, 4)
    first = per_image(functools.partial(update, old=None), 3)
    coefficients = first(inputs, bases, _gram(bases))
    wide = inputs.astype(bases.dtype)
    for _ in range(num_steps):
        numerator = product("bnd,bnr->bdr", wide, coefficients)
        bases = _update_bases(numerator, bases, coefficients)
        coefficients = divided(inputs, bases, _gram(bases), coefficients)
    return Factors(coefficients, bases)


def _whole(inputs: Array, bases: Array, num_steps: int, probes: _Probes):
    """Return the factors of the reconstruction, and those that met the inputs."""
    bases, coefficients, met = _iterate(inputs, bases, num_steps, probes)
    numerator = product("bnd,bdr->bnr", inputs, bases) + probes.of_bases[-1]
    coefficients = _update_coefficients(numerator, bases, coefficients)
    met = _Probes((*met.of_bases, bases), met.of_coefficients)
    return Factors(coefficients, bases), met


def _forward(inputs: Array, bases: Array, num_steps: int):
    """Return the reconstruction and what its gradient needs.

    The inputs are multiplied with D_i and C_i in linear products alone. With P_i and
    Q_i the gradients by these products, the gradient by the inputs is

        sum_i P_i D_i' + sum_i C_i Q_i'

    which is one product of all factors side by side. A sum over the products would need
    as many arrays of the inputs' size as there are products. To get P_i and Q_i, zeros
    are added to the products, and the gradients by these zeros are taken.
    """
    batch, positions, _ = inputs.shape
    short, inputs = inputs, inputs.astype(bases.dtype)
    by_positions = jnp.zeros((batch, positions, bases.shape[2]), inputs.dtype)
    zeros = _Probes(
        (by_positions,) * (num_steps + 2), (jnp.zeros_like(bases),) * num_steps
    )

    def of_others(bases: Array, probes: _Probes):
        return _whole(inputs, bases, num_steps, probes)

    output, pull, met = jax.vjp(of_others, bases, zeros, has_aux=True)
    # An empty array tells the type.
    return output, (pull, met, short[:0])


def _backward(num_steps: int, residuals: Any, cotangent: Factors):
    del num_steps
    pull, met, short = residuals
    by_bases, products = pull(cotangent)
    by_inputs = product(
        "bnr,bdr->bnd",
        jnp.concatenate([*products.of_bases, *met.of_coefficients], axis=2),
        jnp.concatenate([*met.of_bases, *products.of_coefficients], axis=2),
    )
    return by_inputs.astype(short.dtype), by_bases


_factorize.defvjp(_forward, _backward)


def _iterate(
    inputs: Array, bases: Array, num_steps: int, probes: _Probes
) -> tuple[Array, Array, _Probes]:
    """Return bases, coefficients, and the factors that met the inputs."""
    scores = product("bnd,bdr->bnr", inputs, bases) + probes.of_bases[0]
    coefficients = jax.nn.softmax(scores, axis=-1)
    all_bases, all_coefficients = [bases], []
    # A Python loop, not lax.scan: six steps of small products compile quickly, and
    # XLA:CPU runs an unrolled step faster than a loop body with copied carries.
    for step in range(num_steps):
        numerator = product("bnd,bdr->bnr", inputs, bases) + probes.of_bases[step + 1]
        all_bases.append(bases)
        coefficients = _update_coefficients(numerator, bases, coefficients)
        all_coefficients.append(coefficients)
        numerator = product("bnd,bnr->bdr", inputs, coefficients)
        numerator = numerator + probes.of_coefficients[step]
        bases = _update_bases(numerator, bases, coefficients)
    return bases, coefficients, _Probes(tuple(all_bases), tuple(all_coefficients))


def _update_coefficients(numerator: Array, bases: Array, coefficients: Array) -> Array:
    denominator = product("bnr,brs->bns", coefficients, _gram(bases))
    return coefficients * numerator / (denominator + EPSILON)


def _update_bases(numerator: Array, bases: Array, coefficients: Array) -> Array:
    denominator = product("bdr,brs->bds", bases, _gram(coefficients))
    return bases * numerator / (denominator + EPSILON)


@jax.custom_vjp
def _gram(factors: Array) -> Array:
    """Return the products of all pairs of columns.

    The barrier keeps this product apart from the product of the inputs with the same
    factors. XLA for GPUs would join the two, and copy the inputs to lay them beside the
    factors.
    """
    factors = lax.optimization_barrier(factors)
    return product("bnr,bns->brs", factors, factors)


def _gram_backward(factors: Array, cotangent: Array) -> tuple[Array]:
    # One product, where each factor's own would be two and their sum.
    cotangent = cotangent + jnp.swapaxes(cotangent, 1, 2)
    return (product("bnr,brs->bns", factors, cotangent),)


_gram.defvjp(lambda factors: (_gram(factors), factors), _gram_backward)
