"""Time two ways to sum a depthwise kernel's gradient over batch and pixels.

    python benchmarks/depthwise_kernel_gradient.py

Prints median milliseconds of a reduction and of a product with a vector of ones, run
in turn on the same arrays, for the shapes of SegNeXt-T at a batch of 16 64x64 crops and
one of 2 256x256 crops.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHAPES = (
    (16, 16, 32),
    (16, 8, 64),
    (16, 4, 160),
    (16, 2, 256),
    (2, 64, 32),
    (2, 32, 256),
)
KERNELS = ((3, 3), (5, 5), (1, 21))
NUM_RUNS = 30


def gradient(images, cotangent, kernel_size, sum_fn):
    """Return [taps, channels]."""
    rows, columns = kernel_size
    padding = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded = jnp.pad(images, padding)

    def tap(index):
        start = (0, index // columns, index % columns, 0)
        return sum_fn(lax.dynamic_slice(padded, start, cotangent.shape) * cotangent)

    return lax.map(tap, jnp.arange(rows * columns))


def by_reduction(product):
    """Sum the leading dimensions."""
    return jnp.sum(product, axis=(0, 1, 2))


def by_product(product):
    """Multiply by ones."""
    rows = product.reshape(-1, product.shape[-1])
    return (jnp.ones((1, rows.shape[0])) @ rows)[0]


def main():
    """Print the table."""
    rng = np.random.default_rng(0)
    print("| batch, size, channels | kernel | reduction ms | product ms | ratio |")
    print("|---|---|---|---|---|")
    for batch, size, channels in SHAPES:
        shape = (batch, size, size, channels)
        images, cotangent = rng.normal(size=(2, *shape)).astype(np.float32)
        for kernel_size in KERNELS:
            times = ([], [])
            fns = [
                jax.jit(lambda x, g, s=s, k=kernel_size: gradient(x, g, k, s))
                for s in (by_reduction, by_product)
            ]
            outputs = [fn(images, cotangent) for fn in fns]
            np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-2)
            for _ in range(NUM_RUNS):
                for fn, record in zip(fns, times, strict=True):
                    start = time.perf_counter()
                    jax.block_until_ready(fn(images, cotangent))
                    record.append(1e3 * (time.perf_counter() - start))
            reduction, product = map(statistics.median, times)
            print(
                f"| {batch}, {size}x{size}, {channels} | {kernel_size} "
                f"| {reduction:.2f} | {product:.2f} | {product / reduction:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
