"""PyTorch state dicts to Flax variables and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from segnext_jax.convert.detect import (
    Source,
    family,
    find_dialect,
    find_source,
    foreign,
    official_name,
    unwrap,
)
from segnext_jax.convert.names import (
    HAS_BATCH_COUNT,
    Entry,
    entries,
    to_dialect,
    to_flax,
    to_torch,
)
from segnext_jax.convert.pickles import NUMBER_KINDS
from segnext_jax.convert.summary import Reshaped, Summary, described, listed
from segnext_jax.models.segnext import VARIANTS, Variant

Variables = dict[str, Any]

LENIENT = "pass strict=False (--not_strict)"


class Converted(NamedTuple):
    """Flax variables, and where they come from.

    Attributes:
      variables: ``{"params": ..., "batch_stats": ...}`` of NumPy arrays, float32.
      source: What the checkpoint was found to be.
      summary: What became of its arrays.
    """

    variables: Variables
    source: Source
    summary: Summary


def from_state_dict(
    content: Mapping[str, Any],
    *,
    variant: Variant | None = None,
    num_classes: int | None = None,
    strict: bool = True,
) -> Converted:
    """Convert a PyTorch or JSeg checkpoint.

    Args:
      content: What `files.read` returns: arrays by name, in wrappers or not. The
        dialect is found by the names.
      variant: The network that is needed. None: found by the shapes, which must be
        those of a published one.
      num_classes: Number of classes that a decoder needs. None: the checkpoint's.
      strict: Whether every array of the network must be there with its shape, and no
        other. If not, the arrays that fit are taken.

    Returns:
      The variables of a `SegNeXt`; without ``decode_head`` if the checkpoint is of an
      encoder alone, with ``head`` in its place if it is of an `MSCANClassifier`.

    Raises:
      ValueError: If no array matches; if one holds anything but finite numbers; if the
        sizes are of no published network and ``variant`` is not given; or, when strict,
        if arrays are missing, too many, or of another shape.
    """
    arrays = unwrap(content)
    dialect = find_dialect(arrays)
    file_names = {official_name(name, dialect): name for name in arrays}
    shapes = {name: arrays[given].shape for name, given in file_names.items()}
    source = find_source(shapes, dialect)
    if source is None or (variant is None and 0 in source.variant.depths):
        raise _unknown(arrays, file_names)
    if variant is None and source.variant_name is None:
        raise ValueError(
            "a checkpoint must have the sizes of a published network "
            f"({', '.join(VARIANTS)}): got {source.variant}. If arrays are missing, "
            "fetch the file again; for a network of your own pass variant=."
        )
    if num_classes is None or source.kind != "segmentation":
        num_classes = source.num_classes
    wanted = entries(variant or source.variant, num_classes, source.kind)
    by_name = {entry.official: entry for entry in wanted}
    flat, loaded, reshaped = {}, [], []
    for name, given in file_names.items():
        entry = by_name.get(name)
        if entry is None or entry.path is None:
            continue
        if arrays[given].shape != entry.shape:
            reshaped.append(Reshaped(name, arrays[given].shape, entry.shape))
            continue
        value = _weights(name, arrays[given])
        flat[entry.path] = to_flax(value, entry.layout)
        loaded.append(name)
    missing = [e for e in wanted if e.path is not None and e.official not in file_names]
    summary = Summary(
        loaded=tuple(loaded),
        missing=tuple(entry.official for entry in missing),
        unexpected=tuple(v for k, v in file_names.items() if k not in by_name),
        reshaped=tuple(reshaped),
    )
    if strict or not loaded:
        _check(summary, arrays, missing, source)
    return Converted(unflatten_dict(flat), source, summary)


def _unknown(
    arrays: Mapping[str, np.ndarray], file_names: Mapping[str, str]
) -> ValueError:
    """Return the error for arrays that do not tell the network's sizes."""
    tiny = {e.official for e in entries(VARIANTS["tiny"], 1)}
    known = sum(name in tiny for name in file_names)
    if not known:
        return foreign(arrays)
    return ValueError(
        "a checkpoint must hold all stages of the encoder, and of the decoder its "
        f"classifier and norms: only {known} arrays of SegNeXt were found, first "
        f"{described(arrays)}. Fetch the file again."
    )


def _check(
    summary: Summary,
    arrays: Mapping[str, np.ndarray],
    missing: list[Entry],
    source: Source,
) -> None:
    """Refuse what does not fit entirely."""
    is_a = f"The checkpoint is: {source}.{family(arrays)}"
    if summary.reshaped:
        raise ValueError(
            f"every array must have the network's shape: {len(summary.reshaped)} have "
            f"not, first {listed(map(str, summary.reshaped))}. {is_a} Ask for that "
            f"network, or {LENIENT} to leave these fresh."
        )
    if missing:
        needed = [f"{entry.official} {list(entry.shape)}" for entry in missing]
        raise ValueError(
            "every array of the network must be in the checkpoint: missing are "
            f"{listed(needed)}. {is_a} Take a whole file of the needed network, or "
            f"{LENIENT} to leave these fresh."
        )
    if summary.unexpected:
        extra = {name: arrays[name] for name in summary.unexpected}
        raise ValueError(
            f"every array of the checkpoint must be the network's: {described(extra)} "
            f"are not. {is_a} If they may be dropped, {LENIENT}."
        )


def _weights(name: str, value: np.ndarray) -> np.ndarray:
    """Return an array of a checkpoint in float32, refuse what is no weights."""
    found = f"type {value.dtype}"
    if value.dtype.kind in NUMBER_KINDS:
        with np.errstate(over="ignore"):
            weights = _to_float32(value)
        if np.isfinite(weights).all():
            return weights
        found = "nan, infinity or what exceeds float32"
    raise ValueError(
        f"every array must hold finite real numbers: {name} holds {found}. The "
        "training that wrote the file failed, or it is damaged: take another one."
    )


def _to_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32, copy=False)


def to_state_dict(
    variables: Mapping[str, Any], dialect: str = "official"
) -> dict[str, np.ndarray]:
    """Convert Flax variables to a state dict, in PyTorch's order.

    Counts of batches (``num_batches_tracked``), which Flax does not keep, are 0. Files
    of an encoder, with or without linear head, bear no ``backbone.``.

    Args:
      variables: The variables of a `SegNeXt`, of an `MSCANClassifier` or of an encoder
        alone under ``backbone``.
      dialect: ``"official"``, ``"mmseg1"`` (mmsegmentation 1.x) or ``"jseg"``.

    Raises:
      ValueError: If the dialect is unknown, or the variables are those of another
        network.
    """
    if dialect not in HAS_BATCH_COUNT:
        raise ValueError(
            f"the dialect must be one of {', '.join(HAS_BATCH_COUNT)}: got {dialect!r}."
        )
    flat = flatten_dict(
        {c: variables[c] for c in ("params", "batch_stats") if c in variables}
    )
    source = source_of(variables)
    if source is None:
        shown = {".".join(path): value for path, value in flat.items()}
        raise ValueError(
            "variables must be those of SegNeXt, of MSCANClassifier or of MSCAN under "
            f"'backbone': got {described(shown) or 'none'}."
        )
    wanted = entries(source.variant, source.num_classes, source.kind)
    different = {e.path for e in wanted if e.path is not None} ^ set(flat)
    if different:
        raise ValueError(
            f"variables must be exactly those of the network ({source}): missing or "
            f"too many are {listed(sorted('.'.join(path) for path in different))}."
        )
    state_dict = {}
    for entry in wanted:
        if entry.path is not None:
            value = to_torch(_numpy(flat[entry.path]), entry.layout)
        elif HAS_BATCH_COUNT[dialect]:
            value = np.zeros((), np.int64)
        else:
            continue
        state_dict[to_dialect(entry.official, dialect, source.kind)] = value
    return state_dict


def _numpy(value: Any) -> np.ndarray:
    value = np.asarray(value)
    # bfloat16 is unknown to NumPy's files.
    return value if value.dtype in (np.float32, np.float64) else _to_float32(value)


def source_of(variables: Mapping[str, Any]) -> Source | None:
    """Return what Flax variables are, or None if not of SegNeXt."""
    flat: dict[Any, Any] = flatten_dict(variables.get("params", {}))
    shapes = {".".join(path): tuple(value.shape) for path, value in flat.items()}
    return find_source(shapes, None)
