"""Pure functions of arrays: what the network, the loss and the input need.

The functions listed here are the public ones. Three have the name of their module
(``from segnext_jax.ops.gelu import gelu`` and ``from segnext_jax.ops import gelu`` are
the same function).
"""

from segnext_jax.ops.best_class import best_class
from segnext_jax.ops.depthwise import depthwise_conv
from segnext_jax.ops.drop_path import drop_path_factors
from segnext_jax.ops.gelu import gelu
from segnext_jax.ops.multi_scale import multi_scale
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.ops.stride_two import stride_two_conv
from segnext_jax.ops.upsampled import upsampled_cross_entropy, upsampled_labels

__all__ = [
    "best_class",
    "depthwise_conv",
    "drop_path_factors",
    "gelu",
    "multi_scale",
    "resize_bilinear",
    "stride_two_conv",
    "upsampled_cross_entropy",
    "upsampled_labels",
]
