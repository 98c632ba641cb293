"""Initial weights: how wide each kernel is drawn, and all of them at once on the host.

Source: ``init_weights`` in ``mscan.py`` and ``decode_head.py`` of SegNeXt@c87bcae, and
``ConvModule`` of mmcv 1.6.0: every convolution is normal with variance 2 / fan_out,
the pixel classifier normal with deviation 0.01, biases 0, norms 1 and 0, layer scales
0.01.
"""

import functools
import math
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, PRNGKeyArray

LAYER_SCALE = 1e-2
CLASSIFIER_DEVIATION = 0.01

_CONSTANTS = {"bias": 0.0, "scale": 1.0, "mean": 0.0, "var": 1.0}


def fan_out_normal(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Draw a kernel of variance 2 / fan_out; fan_out = kernel area * outputs / groups.

    Args:
      key: Random key.
      shape: [in, out] of a 1x1 convolution, [height, width, in, out] of a dense one, or
        [height, width, channels] of a depthwise one, which has one output per group.
      dtype: Float type.
    """
    return jax.random.normal(key, shape, dtype) * jnp.asarray(_deviation(shape), dtype)


def _deviation(shape: tuple[int, ...]) -> float:
    num_dims = len(shape)
    area = math.prod(shape[:2]) if num_dims > 2 else 1
    outputs_per_group = 1 if num_dims == 3 else shape[-1]
    return math.sqrt(2.0 / (area * outputs_per_group))


def initialize(model: nn.Module, seed: int) -> dict[str, Any]:
    """Return initial variables like ``model.init``, drawn by NumPy on the host.

    The values come from the same distributions, but compile nothing: ``model.init``
    holds hundreds of threefry generators, which take XLA 50 s for SegNeXt-T on two CPU
    cores. Each array is a function of seed and path alone.

    Examples:
      >>> from segnext_jax.models import MSCAN
      >>> model = MSCAN(embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
      >>> initialize(model, seed=0)["params"]["norm4"]["scale"].shape
      (8,)

    Args:
      model: `SegNeXt`, `MSCAN` or `MSCANClassifier`.
      seed: At least 0.

    Raises:
      ValueError: If the model has a parameter of a kind that is not known here.
    """
    shapes = abstract_variables(model)
    leaves = {
        path: _initial(path, leaf, seed)
        for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
    }
    return traverse_util.unflatten_dict(leaves, sep="/")


def abstract_variables(model: nn.Module) -> dict[str, Any]:
    """Return shapes and types of what the model is applied with."""
    # The smallest image that gives each stage a pixel; shapes of parameters do not
    # depend on it.
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return dict(_init.eval_shape(model, jax.random.key(0), images))


# Jitted, so that a network is traced once however often its shapes are asked for.
@functools.partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, key: jax.Array, images: jax.Array) -> Any:
    return model.init(key, images)


def _initial(path: str, leaf: jax.ShapeDtypeStruct, seed: int) -> np.ndarray:
    name = path.rsplit("/", 1)[-1]
    if name == "kernel":
        is_classifier = path.endswith(("conv_seg/kernel", "head/kernel"))
        deviation = CLASSIFIER_DEVIATION if is_classifier else _deviation(leaf.shape)
        generator = np.random.default_rng([seed, zlib.crc32(path.encode())])
        values = generator.standard_normal(leaf.shape) * deviation
    elif name.startswith("layer_scale"):
        values = np.full(leaf.shape, LAYER_SCALE)
    elif name in _CONSTANTS:
        values = np.full(leaf.shape, _CONSTANTS[name])
    else:
        raise ValueError(
            f"parameters must be kernels, biases, scales or layer scales: got {path}. "
            "Give it a rule in segnext_jax/models/initialization.py."
        )
    return values.astype(leaf.dtype)


def check_complete(model: nn.Module, variables: Any) -> None:
    """Refuse weights that are not those of a whole network.

    Raises:
      ValueError: If an array is missing or of another shape.
    """
    needed = traverse_util.flatten_dict(abstract_variables(model), sep="/")
    given = traverse_util.flatten_dict(dict(variables), sep="/")
    missing = sorted(needed.keys() - given.keys())
    if missing:
        raise ValueError(
            f"a whole network is needed to predict: {len(missing)} arrays are missing, "
            f"first {missing[0]}. Train it first, with config.init_from set to this."
        )
    for name, leaf in needed.items():
        if leaf.shape != given[name].shape:
            raise ValueError(
                "the weights must be those of the configuration's network: "
                f"{name} is {list(given[name].shape)}, needed {list(leaf.shape)}. "
                "Correct config.model or config.data.name."
            )
