"""Finding out what a checkpoint is: dialect, kind, variant, number of classes."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from segnext_jax.convert.names import BATCH_COUNT, RENAMED, Dialect, Kind
from segnext_jax.convert.summary import described, listed
from segnext_jax.models.segnext import VARIANTS, Variant

# Keys under which frameworks store the weights, the most specific first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "network")
# What wrappers for several devices and compilers put before every name.
PREFIXES = ("module.", "_orig_mod.")
# What modules of a training (Lightning's) call the network, beside their own arrays.
NETWORK_PREFIX = re.compile(
    r"((?:(?:model|net|network)\.)+)(?:backbone\.)?patch_embed1\."
)
# Names that tell other families of networks, for the error message.
FAMILIES = {
    r"(^|\.)layer1\.0\.conv1\.": "a ResNet",
    r"(^|\.)spatial_gating_unit\.conv_spatial\.": "a VAN",
    r"(^|\.)(layers|stages)\.0\.blocks\.0\.": "a Swin transformer",
    r"(^|\.)blocks?\d?\.\d+\.attn\.(qkv|q|kv)\.": "a transformer",
    r"(^|\.)downsample_layers\.0\.": "a ConvNeXt",
}
# mmsegmentation 1.x sets 16 bases in every config; the official code has 64 in base and
# large. The weights do not tell.
MMSEG1_RANK = 16
NUM_STAGES = 4


@dataclasses.dataclass(frozen=True)
class Source:
    """What a checkpoint was found to be.

    Attributes:
      kind: Whole network, encoder alone, or encoder with a linear head.
      dialect: Whose names it uses; None for Flax variables.
      variant_name: A key of `VARIANTS`; None if the sizes are of no published network.
      variant: Its sizes. The rank is not in the weights: it follows the dialect.
      num_classes: Number of classes; None for an encoder alone.
    """

    kind: Kind
    dialect: Dialect | None
    variant_name: str | None
    variant: Variant
    num_classes: int | None

    def __str__(self) -> str:
        """Say it in one line."""
        what = {
            "segmentation": "SegNeXt",
            "backbone": "encoder alone",
            "classifier": "encoder with a linear head",
        }[self.kind]
        parts = [f"{what}, {self.variant_name or f'own sizes {self.variant}'}"]
        if self.num_classes is not None:
            parts.append(f"{self.num_classes} classes")
        if self.dialect is not None:
            parts.append(f"{self.dialect} names")
        return ", ".join(parts)


def unwrap(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint by name, without wrappers and prefixes.

    Raises:
      ValueError: If the checkpoint holds no arrays.
    """
    state_dict = content
    while inner := [w for w in WRAPPERS if isinstance(state_dict.get(w), Mapping)]:
        state_dict = state_dict[inner[0]]
    arrays = {
        str(name): np.asarray(value)
        for name, value in state_dict.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    if not arrays:
        raise ValueError(
            "a checkpoint must hold arrays by name, alone or under one of "
            f"{', '.join(WRAPPERS)}: got {listed(map(repr, content)) or 'nothing'}. "
            "Save model.state_dict()."
        )
    while prefix := next((p for p in PREFIXES if _all_begin(arrays, p)), None):
        arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    if found := next(filter(None, map(NETWORK_PREFIX.match, arrays)), None):
        arrays = {name.removeprefix(found[1]): value for name, value in arrays.items()}
    return arrays


def _all_begin(names: Iterable[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def find_dialect(names: Iterable[str]) -> Dialect:
    """Return whose names these are."""
    names = list(names)
    for official, renamed in RENAMED["mmseg1"].items():
        if any(renamed in name and official not in name for name in names):
            return "mmseg1"
    has_counts = any(name.endswith(BATCH_COUNT) for name in names)
    return "official" if has_counts else "jseg"


def official_name(name: str, dialect: Dialect) -> str:
    """Return the official key of an array, with the prefix ``backbone.``."""
    for official, renamed in RENAMED[dialect].items():
        if official not in name:
            name = name.replace(renamed, official)
    if re.match(r"(patch_embed|block|norm)\d\.", name):
        name = "backbone." + name
    return name


def find_kind(names: Iterable[str]) -> Kind:
    """Return what a network with these arrays does."""
    names = list(names)
    if any(name.startswith("decode_head.") for name in names):
        return "segmentation"
    return "classifier" if "head.bias" in names else "backbone"


def find_source(
    shapes: Mapping[str, tuple[int, ...]], dialect: Dialect | None
) -> Source | None:
    """Return what arrays of these names and shapes are, or None if not of SegNeXt.

    Biases tell the sizes: their names and shapes are those of PyTorch and Flax alike.

    Args:
      shapes: Shapes by official name, or by Flax path joined by dots.
      dialect: Whose file it is.
    """
    kind = find_kind(shapes)

    def size(*names: str) -> int | None:
        found = (shapes[name] for name in names if len(shapes.get(name, ())) == 1)
        return next((shape[0] for shape in found), None)

    dims, depths, ratios = [], [], []
    for stage in range(1, NUM_STAGES + 1):
        block = re.compile(rf"backbone\.block{stage}[._](\d+)\.")
        indices = [int(m[1]) for m in map(block.match, shapes) if m]
        dim = size(
            f"backbone.norm{stage}.bias", f"backbone.patch_embed{stage}.norm.bias"
        )
        first = [f"backbone.block{stage}{mark}0.mlp.fc1.bias" for mark in "._"]
        hidden = size(*first)
        if not dim or (indices and hidden is None):
            return None
        dims.append(dim)
        depths.append(max(indices, default=-1) + 1)
        # A stage without blocks has no MLP to tell the ratio.
        ratios.append(hidden / dim if hidden else 4.0)
    num_classes = size("decode_head.conv_seg.bias", "head.bias")
    head_channels = size(
        "decode_head.align.gn.bias",
        "decode_head.squeeze.gn.bias",
        "decode_head.hamburger.ham_in.conv.bias",
    )
    if kind == "segmentation" and (head_channels is None or num_classes is None):
        return None

    sizes = (tuple(dims), tuple(depths), tuple(ratios))
    for variant_name, known in VARIANTS.items():
        if sizes != (known.embed_dims, known.depths, known.mlp_ratios):
            continue
        if head_channels in (None, known.head_channels):
            rank = MMSEG1_RANK if dialect == "mmseg1" else known.rank
            variant = dataclasses.replace(known, rank=rank)
            return Source(kind, dialect, variant_name, variant, num_classes)
    own = Variant(*sizes, 0.0, head_channels or 0, MMSEG1_RANK)
    return Source(kind, dialect, None, own, num_classes)


def family(arrays: Iterable[str]) -> str:
    """Return a sentence on the family of networks that names remind of, or nothing."""
    names = list(arrays)
    for pattern, found in FAMILIES.items():
        if any(re.search(pattern, name) for name in names):
            return f" They look like {found}'s."
    return ""


def foreign(arrays: Mapping[str, np.ndarray]) -> ValueError:
    """Return the error for a checkpoint of another network."""
    return ValueError(
        "a SegNeXt checkpoint must hold arrays like patch_embed1.proj.0.weight, alone "
        f"or after 'backbone.': none matches; got {described(arrays)}.{family(arrays)} "
        "Use a file of the official SegNeXt, mmsegmentation 1.x or JSeg."
    )
