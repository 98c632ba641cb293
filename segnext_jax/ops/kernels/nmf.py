"""A Triton kernel of the NMF: new coefficients, with all that they are made of."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from segnext_jax.ops.kernels.row_program import sum_type

_ROWS, _CHANNELS = 64, 16


def takes(channels: int, rank: int) -> bool:
    """Return whether the kernel takes such bases: tensor cores take 16 channels."""
    return channels % _CHANNELS == 0 and rank in (16, 32, 64)


def _parts(values: Array) -> list[Array]:
    """Return a float32 as three bfloat16 that it is the sum of, others as they are."""
    if values.dtype != jnp.float32:
        return [values]
    parts = []
    for _ in range(3):
        parts.append(values.astype(jnp.bfloat16))
        values -= parts[-1].astype(values.dtype)
    return parts


def _product(values: Array, weights: Array) -> Array:
    """Return ``values @ weights``, as exact as float32.

    Tensor cores multiply bfloat16 exactly; products of float32 would be those of lanes.
    """
    total = jnp.zeros((values.shape[0], weights.shape[1]), weights.dtype)
    for one in _parts(values):
        for other in _parts(weights):
            total += jnp.dot(one, other, preferred_element_type=weights.dtype)
    return total


def _kernel(
    inputs, bases, gram, old, output, *, sizes: tuple[int, ...], epsilon: float
):
    positions, channels, rank = sizes
    rows = pl.program_id(0) * _ROWS + lax.iota(jnp.int32, _ROWS)
    image = pl.program_id(1)
    step_size = next(size for size in (64, 32, 16) if channels % size == 0)

    def place(rows: Array, size: int, start=0) -> Array:
        shape = rows.size, size
        row = lax.broadcast_in_dim(rows, shape, (0,))
        return row * size + lax.broadcasted_iota(jnp.int32, shape, 1) + start

    def step(number: Array, total: Array) -> Array:
        shape = _ROWS, step_size
        inner = number * step_size + lax.broadcasted_iota(jnp.int32, shape, 1)
        row = lax.broadcast_in_dim(rows, shape, (0,))
        values = plgpu.load(
            inputs.at[(image * positions + row) * channels + inner],
            mask=row < positions,
            other=0.0,
        )
        channel = number * step_size + lax.iota(jnp.int32, step_size)
        weights = bases[place(image * channels + channel, rank)]
        return total + _product(values, weights)

    numerator = jnp.zeros((_ROWS, rank), output.dtype)
    numerator = lax.fori_loop(0, channels // step_size, step, numerator)
    own = place(image * positions + rows, rank)
    inside = lax.broadcast_in_dim(rows < positions, own.shape, (0,))
    if old is None:
        above = jnp.max(numerator, axis=1)[:, None]
        powers = jnp.exp(numerator - above)
        coefficients = powers / jnp.sum(powers, axis=1)[:, None]
    else:
        coefficients = plgpu.load(old.at[own], mask=inside, other=0.0)
    columns = gram[place(image * rank + lax.iota(jnp.int32, rank), rank)]
    denominator = _product(coefficients, columns)
    coefficients = coefficients * numerator / (denominator + epsilon)
    plgpu.store(output.at[own], coefficients, mask=inside)


def coefficients(
    inputs: Float[Array, "batch positions channels"],
    bases: Float[Array, "batch channels rank"],
    gram: Float[Array, "batch rank rank"],
    old: Float[Array, "batch positions rank"] | None,
    *,
    epsilon: float,
    interpret: bool = False,
) -> Float[Array, "batch positions rank"]:
    """Return ``old * (inputs @ bases) / (old @ gram + epsilon)``.

    Args:
      inputs: Of less than 2^31 values; they are read once.
      bases: In the type of sums.
      gram: Products of all pairs of bases.
      old: Coefficients; None: softmax of ``inputs @ bases``.
      epsilon: Added to the denominator.
      interpret: Run on any platform, slowly: for tests.
    """
    batch, positions, channels = inputs.shape
    sizes = positions, channels, bases.shape[2]
    arrays = jax.tree.map(lambda a: a.reshape(-1), (inputs, bases, gram, old))
    output = pl.pallas_call(
        lambda *refs: _kernel(*refs, sizes=sizes, epsilon=epsilon),
        out_shape=jax.ShapeDtypeStruct(
            (batch * positions * bases.shape[2],), sum_type(inputs.dtype)
        ),
        grid=(pl.cdiv(positions, _ROWS), batch),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="nmf_coefficients",
    )(*arrays)
    return output.reshape(batch, positions, bases.shape[2])
