"""The names of SegNeXt's arrays in PyTorch and in Flax: one table, read both ways.

The tables below list every layer in PyTorch's order: its official module name, its Flax
module name, its kind and its sizes. `entries` writes them out for a network.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from segnext_jax.models.segnext import Variant

Kind = Literal["segmentation", "backbone", "classifier"]
Dialect = Literal["official", "mmseg1", "jseg"]

# Each dialect's module names where they are not the official ones.
# Source: mmsegmentation PR #2653; python/jseg/models/backbones/mscan.py of JSeg.
RENAMED = {
    "official": {},
    "mmseg1": {".mlp.dwconv.dwconv.": ".mlp.dwconv."},
    "jseg": {},
}
# Jittor's BatchNorm keeps no count of batches.
HAS_BATCH_COUNT = {"official": True, "mmseg1": True, "jseg": False}

# PyTorch axes of each layout, in Flax's order, and those of length 1 that Flax drops.
# conv: OIHW to HWIO; pointwise: OI11 to IO; depthwise: O1HW to HWO; linear: OI to IO.
LAYOUTS = {
    "conv": ((2, 3, 1, 0), ()),
    "pointwise": ((2, 3, 1, 0), (0, 1)),
    "depthwise": ((2, 3, 1, 0), (2,)),
    "linear": ((1, 0), ()),
    "vector": ((0,), ()),
}
# PyTorch's leaf name, Flax's collection and leaf name, per kind of layer.
_KERNEL = ("weight", "params", "kernel")
_BIAS = ("bias", "params", "bias")
_NORM = (("weight", "params", "scale"), _BIAS)
_LEAVES = {
    "conv": (_KERNEL, _BIAS),
    "pointwise": (_KERNEL, _BIAS),
    "pointwise_without_bias": (_KERNEL,),
    "depthwise": (_KERNEL, _BIAS),
    "linear": (_KERNEL, _BIAS),
    "norm": _NORM,
    "batch_norm": (
        *_NORM,
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    ),
    "scale": (("", "params", ""),),
}
BATCH_COUNT = "num_batches_tracked"

# (official module, Flax module, kind of layer, its PyTorch weight's shape)
_STEM = (
    ("proj.0", "proj_0", "conv", ("half", 3, 3, 3)),
    ("proj.1", "proj_1", "batch_norm", ("half",)),
    ("proj.3", "proj_3", "conv", ("dim", "half", 3, 3)),
    ("proj.4", "proj_4", "batch_norm", ("dim",)),
)
_DOWNSAMPLE = (
    ("proj", "proj", "conv", ("dim", "previous", 3, 3)),
    ("norm", "norm", "batch_norm", ("dim",)),
)
_GATE = "attn.spatial_gating_unit."
_BLOCK = (
    ("layer_scale_1", "layer_scale_1", "scale", ("dim",)),
    ("layer_scale_2", "layer_scale_2", "scale", ("dim",)),
    ("norm1", "norm1", "batch_norm", ("dim",)),
    ("attn.proj_1", "attn.proj_1", "pointwise", ("dim", "dim", 1, 1)),
    (_GATE + "conv0", _GATE + "conv0", "depthwise", ("dim", 1, 5, 5)),
    (_GATE + "conv0_1", _GATE + "conv0_1", "depthwise", ("dim", 1, 1, 7)),
    (_GATE + "conv0_2", _GATE + "conv0_2", "depthwise", ("dim", 1, 7, 1)),
    (_GATE + "conv1_1", _GATE + "conv1_1", "depthwise", ("dim", 1, 1, 11)),
    (_GATE + "conv1_2", _GATE + "conv1_2", "depthwise", ("dim", 1, 11, 1)),
    (_GATE + "conv2_1", _GATE + "conv2_1", "depthwise", ("dim", 1, 1, 21)),
    (_GATE + "conv2_2", _GATE + "conv2_2", "depthwise", ("dim", 1, 21, 1)),
    (_GATE + "conv3", _GATE + "conv3", "pointwise", ("dim", "dim", 1, 1)),
    ("attn.proj_2", "attn.proj_2", "pointwise", ("dim", "dim", 1, 1)),
    ("norm2", "norm2", "batch_norm", ("dim",)),
    ("mlp.fc1", "mlp.fc1", "pointwise", ("hidden", "dim", 1, 1)),
    ("mlp.dwconv.dwconv", "mlp.dwconv", "depthwise", ("hidden", 1, 3, 3)),
    ("mlp.fc2", "mlp.fc2", "pointwise", ("dim", "hidden", 1, 1)),
)
_NO_BIAS = "pointwise_without_bias"
_HAM = "hamburger."
_DECODE_HEAD = (
    ("conv_seg", "conv_seg", "pointwise", ("classes", "head", 1, 1)),
    ("squeeze.conv", "squeeze.conv", _NO_BIAS, ("head", "joined", 1, 1)),
    ("squeeze.gn", "squeeze.gn", "norm", ("head",)),
    (_HAM + "ham_in.conv", _HAM + "ham_in.conv", "pointwise", ("head", "head", 1, 1)),
    (_HAM + "ham_out.conv", _HAM + "ham_out.conv", _NO_BIAS, ("head", "head", 1, 1)),
    (_HAM + "ham_out.gn", _HAM + "ham_out.gn", "norm", ("head",)),
    ("align.conv", "align.conv", _NO_BIAS, ("head", "head", 1, 1)),
    ("align.gn", "align.gn", "norm", ("head",)),
)
_CLASSIFIER = (("head", "head", "linear", ("classes", "dim")),)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of the network.

    Attributes:
      official: Its key in the official ``state_dict``, with the prefix ``backbone.``.
      path: Its path in the Flax variables; None for a count of batches, which Flax does
        not keep.
      layout: A key of `LAYOUTS`.
      shape: Its shape in PyTorch.
    """

    official: str
    path: tuple[str, ...] | None
    layout: str
    shape: tuple[int, ...]


@functools.cache
def entries(
    variant: Variant, num_classes: int | None, kind: Kind = "segmentation"
) -> tuple[Entry, ...]:
    """Return all arrays of a network, in the order of PyTorch's ``state_dict``.

    Args:
      variant: Sizes of the network.
      num_classes: Number of classes; not used for a ``"backbone"``.
      kind: Encoder and decoder, encoder alone, or encoder with a linear head.
    """
    found = list(_backbone(variant))
    sizes = {
        "head": variant.head_channels,
        "joined": sum(variant.embed_dims[1:]),
        "dim": variant.embed_dims[-1],
        "classes": num_classes,
    }
    if kind == "segmentation":
        found += _layers("decode_head.", "decode_head.", _DECODE_HEAD, sizes)
    elif kind == "classifier":
        found += _layers("", "", _CLASSIFIER, sizes)
    return tuple(found)


def _backbone(variant: Variant) -> Iterator[Entry]:
    previous = 0
    stages = zip(variant.embed_dims, variant.depths, variant.mlp_ratios, strict=True)
    for stage, (dim, depth, ratio) in enumerate(stages, start=1):
        sizes = {"previous": previous, "dim": dim, "half": dim // 2}
        sizes["hidden"] = int(dim * ratio)
        embed = f"backbone.patch_embed{stage}."
        yield from _layers(embed, embed, _STEM if stage == 1 else _DOWNSAMPLE, sizes)
        for index in range(depth):
            official = f"backbone.block{stage}.{index}."
            flax = f"backbone.block{stage}_{index}."
            yield from _layers(official, flax, _BLOCK, sizes)
        norm = ((f"norm{stage}", f"norm{stage}", "norm", ("dim",)),)
        yield from _layers("backbone.", "backbone.", norm, sizes)
        previous = dim


def _layers(official: str, flax: str, table, sizes: dict) -> Iterator[Entry]:
    for official_module, flax_module, layer, symbols in table:
        shape = tuple(sizes[s] if isinstance(s, str) else s for s in symbols)
        for leaf, collection, flax_leaf in _LEAVES[layer]:
            name = ".".join(filter(None, (official + official_module, leaf)))
            path = (collection, *(flax + flax_module).split("."), flax_leaf)
            is_kernel = flax_leaf == "kernel"
            yield Entry(
                official=name,
                path=tuple(filter(None, path)),
                layout=layer.removesuffix("_without_bias") if is_kernel else "vector",
                shape=shape if is_kernel else shape[:1],
            )
        if layer == "batch_norm":
            count = f"{official}{official_module}.{BATCH_COUNT}"
            yield Entry(official=count, path=None, layout="vector", shape=())


def to_flax(value: np.ndarray, layout: str) -> np.ndarray:
    """Return a PyTorch array in Flax's layout; see `LAYOUTS`."""
    axes, dropped = LAYOUTS[layout]
    return np.ascontiguousarray(value.transpose(axes).squeeze(dropped))


def to_torch(value: np.ndarray, layout: str) -> np.ndarray:
    """Return a Flax array in PyTorch's layout: the inverse of `to_flax`."""
    axes, dropped = LAYOUTS[layout]
    value = np.expand_dims(value, dropped) if dropped else value
    return np.ascontiguousarray(value.transpose(np.argsort(axes)))


def to_dialect(name: str, dialect: str, kind: Kind = "segmentation") -> str:
    """Return the key that a dialect gives to an array.

    Files of an encoder, with or without its linear head, bear no ``backbone.``.
    """
    for official, renamed in RENAMED[dialect].items():
        name = name.replace(official, renamed)
    return name if kind == "segmentation" else name.removeprefix("backbone.")
