"""Formulations of depthwise convolution and of its kernel's gradient, in turn.

    python benchmarks/depthwise.py [--batch=2] [--image_size=256] [--variant=tiny]

Forward: XLA's grouped convolution; the sum of shifted products as the network has it
(`segnext_jax.ops.depthwise`, padding included); the same without the spare column; rows
and channels flattened, with the kernel repeated along the row; and for strips along
rows a product with a banded matrix for each channel. Gradient of the kernel: a loop
over taps, as the network has it; a loop over blocks of four rows with all taps
unrolled. All are compared before they are timed. Medians in ms; prints a table.
"""

import argparse
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from segnext_jax.benchmark.programs import take_turns
from segnext_jax.models.segnext import VARIANTS
from segnext_jax.ops.depthwise import depthwise_conv, pad, windows_gradient, windows_sum

KERNEL_SIZES = ((3, 3), (5, 5), (1, 21), (21, 1))
BLOCK = 4


def grouped(images: Array, kernel: Array) -> Array:
    """XLA's convolution with one group per channel."""
    return depthwise_conv(images, kernel, implementation="grouped")


def without_spare_column(images: Array, kernel: Array) -> Array:
    """Shifted products of rows that may lie a multiple of 4 KiB apart."""
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    pads = ((0, 0), (rows, rows), (columns, columns), (0, 0))
    padded = lax.optimization_barrier(jnp.pad(images, pads))
    return windows_sum(padded, kernel, images.shape[1:3])


def flattened(images: Array, kernel: Array) -> Array:
    """Shifted products over [rows, width * channels]."""
    batch, height, width, channels = images.shape
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = pad(images, rows, columns)
    padded = padded.reshape(*padded.shape[:2], -1)
    repeated = lax.optimization_barrier(jnp.tile(kernel, (1, 1, width)))
    size = width * channels
    output = sum(
        padded[:, i : i + height, j * channels : j * channels + size] * repeated[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )
    return output.reshape(images.shape)


def banded(images: Array, kernel: Array) -> Array:
    """Strips along rows as products with a banded matrix for each channel."""
    width, length = images.shape[2], kernel.shape[1]
    distance = np.arange(width)[:, None] - np.arange(width)[None] + length // 2
    is_in_band = (distance >= 0) & (distance < length)
    taps = kernel[0][np.clip(distance, 0, length - 1)]
    matrices = jnp.where(is_in_band[..., None], taps, 0)
    return jnp.einsum("bhwc,wxc->bhxc", images, matrices, precision="highest")


def by_taps(images: Array, cotangent: Array, kernel_size: tuple[int, int]) -> Array:
    """Return the kernel's gradient by a loop over its taps."""
    padded = pad(images, kernel_size[0] // 2, kernel_size[1] // 2)
    return windows_gradient(padded, cotangent, (*kernel_size, images.shape[-1]))


def by_blocks(images: Array, cotangent: Array, kernel_size: tuple[int, int]) -> Array:
    """Return the kernel's gradient by a loop over blocks of rows."""
    kernel_height, kernel_width = kernel_size
    batch, height, width, channels = cotangent.shape
    padded = pad(images, kernel_height // 2, kernel_width // 2)

    def add_block(index: Array, total: Array) -> Array:
        def rows_of(array: Array, count: int) -> Array:
            return lax.dynamic_slice_in_dim(array, index * BLOCK, count, axis=1)

        weights = rows_of(cotangent, BLOCK)
        block = rows_of(padded, BLOCK + kernel_height - 1)
        return total + jnp.stack(
            [
                sum(
                    block[:, i + row, j + first : j + width : BLOCK]
                    * weights[:, row, first::BLOCK]
                    for row in range(BLOCK)
                    for first in range(BLOCK)
                )
                for i in range(kernel_height)
                for j in range(kernel_width)
            ]
        )

    shape = (kernel_height * kernel_width, batch, width // BLOCK, channels)
    total = jnp.zeros(shape, cotangent.dtype)
    total = lax.fori_loop(0, height // BLOCK, add_block, total)
    return jnp.sum(total, axis=(1, 2)).reshape(*kernel_size, channels)


def measure(functions: dict[str, Callable], arguments: tuple, rounds: int) -> dict:
    """Return the median ms of each function; the first one's result is right."""
    compiled = {
        name: jax.jit(function).lower(*arguments).compile()
        for name, function in functions.items()
    }
    wanted = next(iter(compiled.values()))(*arguments)
    for function in compiled.values():
        tolerance = 1e-4 * float(jnp.max(jnp.abs(wanted)))
        np.testing.assert_allclose(function(*arguments), wanted, 0, tolerance)
    programs = {
        name: functools.partial(lambda f: jax.block_until_ready(f(*arguments)), f)
        for name, f in compiled.items()
    }
    times = take_turns(programs, rounds)
    return {name: times[name].median_ms for name in programs}


def main() -> None:
    """Measure the shapes of all stages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    forward = {
        "grouped": grouped,
        "shifted": depthwise_conv,
        "no spare column": without_spare_column,
        "flattened": flattened,
        "banded": banded,
    }
    gradients = {"gradient by taps": by_taps, "by blocks": by_blocks}
    columns = [*forward, *gradients]
    print("| batch, size, channels | kernel |", " | ".join(columns), "|")
    print("|---|---|" + "---|" * len(columns))
    variant = VARIANTS[options.variant]
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return jnp.asarray(generator.standard_normal(shape), jnp.float32)

    for stage, width in enumerate(variant.embed_dims):
        side = options.image_size // 2 ** (stage + 2)
        for size in KERNEL_SIZES:
            # The 3x3 is the MLP's, over its hidden channels.
            ratio = variant.mlp_ratios[stage] if size == (3, 3) else 1
            shape = (options.batch, side, side, int(width * ratio))
            images = draw(*shape)
            chosen = {
                name: function
                for name, function in forward.items()
                if name != "banded" or size[0] == 1
            }
            found = measure(chosen, (images, draw(*size, shape[-1])), options.rounds)
            by_size = {
                name: functools.partial(function, kernel_size=size)
                for name, function in gradients.items()
            }
            found |= measure(by_size, (images, draw(*shape)), options.rounds)
            cells = [f"{found[c]:.2f}" if c in found else "" for c in columns]
            place = f"{shape[0]}, {side}x{side}, {shape[-1]}"
            print(f"| {place} | {size[0]}x{size[1]} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
