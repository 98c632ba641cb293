"""What the Hamburger's three matrix decompositions share."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

GRADIENTS = ("full", "one_step")

# TPUs and tensor cores multiply float32 matrices in fewer bits unless told not to; the
# updates divide by such products.
product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def iterated(arrays: tuple[Array, ...], gradient: str) -> tuple[Array, ...]:
    """Return what the iterations see: the arrays, or constants of equal value.

    With ``"full"`` the gradient passes through all iterations. With ``"one_step"`` the
    factors that they arrive at count as constants, and only the last coefficients and
    the reconstruction are differentiated: less memory and time, and no gradient that
    grows or fades over the iterations.

    Raises:
      ValueError: If ``gradient`` is neither of the two.

    Source: the one-step gradient of Geng et al., "Is attention better than matrix
    decomposition?", ICLR 2021; JSeg trains by it, the official SegNeXt by ``"full"``.
    """
    if gradient == "full":
        return arrays
    if gradient == "one_step":
        return tuple(lax.stop_gradient(array) for array in arrays)
    raise ValueError(
        f"the gradient of a decomposition must be one of {', '.join(GRADIENTS)}: "
        f"got {gradient!r}."
    )


def length(
    vectors: Float[Array, "batch rows columns"], axis: int, smallest: float
) -> Float[Array, "batch _ _"]:
    """Return lengths along ``axis`` (kept), at least ``smallest``.

    The floor stands under the root, where it also keeps the derivative at 0 finite.
    """
    squares = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, smallest**2))
