"""The Gaussian error linear unit, exact, in a form that compilers fuse."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# erf(z) = z * P(z^2) / Q(z^2) for |z| <= LIMIT; the highest power comes first. At LIMIT
# erf is 1 less half a unit in the last place of float32.
# Source: ErfImpl32 of XLA's math library.
NUMERATOR = (
    *(0.00022905065861350646, 0.0034082910107109506, 0.050955695062380861),
    *(0.18520832239976145, 1.128379143519084),
)
DENOMINATOR = (
    *(-1.1791602954361697e-7, 0.000023547966471313185, 0.0010179625278914885),
    *(0.014070470171167667, 0.11098505178285362, 0.49746925110067538, 1.0),
)
LIMIT = 3.832506856900711
# Where x / sqrt(2) is at most this, 1 + erf(x / sqrt(2)) rounds to 0 in float32, and
# gelu returns 0.
ZERO_BELOW = -5.0


def gelu(inputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``x * (1 + erf(x / sqrt(2))) / 2``, in the type of ``inputs``.

    The computation is in float32 at least, so that a bfloat16 result is rounded once.
    In float32 the error is below 4e-7 times max(1, abs(x)), like PyTorch's; in float64
    the result is exact.

    Why not `flax.linen.gelu`: on XLA:CPU its erfc takes two polynomials, an exponential
    and three divisions for each value. Where a normalisation or convolution follows,
    XLA also writes the parts of this erfc to arrays in memory (BENCHMARKS.md, GELU).
    The form here takes one quotient of polynomials. Its last operation is a choice
    (``where``), which keeps XLA from moving the operations of gelu into the library
    call that follows.

    Source: ``nn.GELU`` in ``mscan.py`` of SegNeXt@c87bcae (not the tanh form).
    """
    if inputs.dtype.itemsize == 2:
        # A custom derivative has no type that type checkers know.
        output: Any = _short_gelu(inputs)
        return output
    return _gelu(inputs)


# With this custom rule the backward pass keeps only the input. Without the rule XLA
# keeps erf, too, and computes what comes before gelu twice: once for erf and once for
# the product with erf.
@jax.custom_vjp
def _gelu(values: Array) -> Array:
    return gelu_value(values)


def gelu_value(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return `gelu` of float32 or float64, without a rule for its gradient."""
    scaled = values * jnp.asarray(0.5**0.5, values.dtype)
    half = jnp.asarray(0.5, values.dtype)
    if values.dtype == jnp.float64:
        return values * (half * lax.erfc(-scaled))
    output = values * (half * _erf(scaled) + half)
    return jnp.where(scaled <= ZERO_BELOW, jnp.zeros_like(output), output)


@jax.custom_vjp
def _short_gelu(values: Array) -> Array:
    return _gelu(values.astype(jnp.float32)).astype(values.dtype)


def _short_backward(values: Array, cotangent: Array):
    slope = gelu_slope(values.astype(jnp.float32))
    gradient = (cotangent.astype(jnp.float32) * slope).astype(values.dtype)
    # Without the barrier XLA for GPUs would keep the gradient in float32, too, for the
    # sums over pixels of what comes before.
    return (lax.optimization_barrier(gradient),)


_short_gelu.defvjp(lambda values: (_short_gelu(values), values), _short_backward)


def _forward(values: Array):
    return _gelu(values), values


def _backward(values: Array, cotangent: Array):
    return (cotangent * gelu_slope(values),)


def gelu_slope(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the derivative of `gelu` at values of float32 or float64."""
    # Phi(x) + x phi(x). Phi(x) is written as 1 - Phi(-x), because XLA would recognise
    # the expression of `gelu_value` and keep its value from the forward pass.
    one = jnp.ones((), values.dtype)
    scaled = values * jnp.asarray(-(0.5**0.5), values.dtype)
    if values.dtype == jnp.float64:
        below = lax.erfc(scaled) / 2
    else:
        below = one - (one + _erf(scaled)) * jnp.asarray(0.5, values.dtype)
    density = jnp.exp(-scaled * scaled) * jnp.asarray((2 * jnp.pi) ** -0.5, one.dtype)
    return below + values * density


_gelu.defvjp(_forward, _backward)


@jax.custom_jvp
def _erf(values: Array) -> Array:
    """Return erf of float32 values to 4e-7."""
    low, high = (jnp.asarray(limit, values.dtype) for limit in (-LIMIT, LIMIT))
    values = jnp.minimum(jnp.maximum(values, low), high)
    square = values * values
    return values * _polynomial(square, NUMERATOR) / _polynomial(square, DENOMINATOR)


@_erf.defjvp
def _erf_tangent(primals, tangents):
    # The derivative of erf, not of the approximation: 2 / sqrt(pi) * exp(-z^2).
    (values,), (tangent,) = primals, tangents
    slope = jnp.asarray(2 / jnp.pi**0.5, values.dtype) * jnp.exp(-(values * values))
    return _erf(values), slope * tangent


def _polynomial(values: Array, coefficients: tuple[float, ...]) -> Array:
    first, *others = (jnp.asarray(c, values.dtype) for c in coefficients)
    result = jnp.full_like(values, first)
    for coefficient in others:
        result = result * values + coefficient
    return result
