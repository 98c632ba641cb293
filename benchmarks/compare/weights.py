"""A value for each parameter and buffer of SegNeXt, from its PyTorch name alone.

The numbers in tests/goldens are those of the official network filled by this rule, so
that no file of weights is needed. Names and shapes: params_<variant>.json there.
"""

import hashlib
import math
import re

import numpy as np

# The first key that is in the name wins.
GAINS = (
    (".attn.proj_2.", 0.25),
    (".mlp.fc2.", 0.5),
    (".spatial_gating_unit.conv3.", 0.5),
    (".spatial_gating_unit.", 1.0),
    ("", math.sqrt(2.0)),
)


def value_for(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return the value of an entry of the state_dict.

    Norms of blocks further down a stage have larger running statistics (by 1 + 0.6 for
    each block), as in a trained network; otherwise the attention, quadratic in its
    input, overflows float32 in base and large.

    Returns:
      float32 of the shape; int64 zeros for num_batches_tracked.

    Raises:
      ValueError: If no rule fits the name and shape.
    """
    shape = tuple(int(size) for size in shape)
    generator = _generator(f"{name}|{seed}")
    leaf = name.rsplit(".", 1)[-1]
    block = re.search(r"\.block\d+\.(\d+)\.norm[12]\.", "." + name)
    scale = 1.0 + 0.6 * int(block.group(1)) if block else 1.0
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_mean":
        value = 0.1 * scale * generator.standard_normal(shape)
    elif leaf == "running_var":
        value = scale * scale * generator.uniform(0.5, 1.5, shape)
    elif "layer_scale" in leaf:
        value = 0.5 + 0.1 * generator.standard_normal(shape)
    elif len(shape) == 4:
        gain = next(gain for key, gain in GAINS if key in name)
        fan_in = shape[1] * shape[2] * shape[3]
        value = gain / math.sqrt(fan_in) * generator.standard_normal(shape)
    elif leaf == "bias":
        value = 0.1 * generator.standard_normal(shape)
    elif leaf == "weight" and len(shape) == 1:
        value = 1.0 + 0.1 * generator.standard_normal(shape)
    else:
        raise ValueError(f"no rule gives a value to {name} of shape {shape}.")
    return np.asarray(value, np.float32)


def bases_for(batch: int, channels: int, rank: int, seed: int = 0) -> np.ndarray:
    """Return starting bases of the NMF [batch, channels, rank], float32.

    Uniform in [0, 1), then of unit length over channels.
    """
    # The 1: groups of bases, of which every variant has one.
    generator = _generator(f"bases|{batch}|1|{channels}|{rank}|{seed}")
    bases = generator.random((batch, channels, rank))
    lengths = np.sqrt((bases * bases).sum(1, keepdims=True))
    return (bases / np.maximum(lengths, 1e-12)).astype(np.float32)


def image_for(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth image with noise, RGB uint8 [height, width, 3]."""
    generator = np.random.default_rng([seed, height, width])
    grid = generator.uniform(0, 255, (7, 9, 3))
    y, x = np.linspace(0, 6, height), np.linspace(0, 8, width)
    y0, x0 = np.minimum(y.astype(int), 5), np.minimum(x.astype(int), 7)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    image = (
        (1 - fy) * (1 - fx) * grid[y0][:, x0]
        + (1 - fy) * fx * grid[y0][:, x0 + 1]
        + fy * (1 - fx) * grid[y0 + 1][:, x0]
        + fy * fx * grid[y0 + 1][:, x0 + 1]
    )
    return np.clip(image + generator.normal(0, 25, image.shape), 0, 255).astype(
        np.uint8
    )


def _generator(text: str) -> np.random.Generator:
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
