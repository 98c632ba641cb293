"""Starting a network from the arrays of another: ``config.init_from``."""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from segnext_jax.convert.summary import Reshaped, Summary, described, listed
from segnext_jax.convert.weights import LENIENT, Variables, source_of

# The arrays whose shape follows the number of classes.
CLASS_MODULES = (("decode_head", "conv_seg"), ("head",))
BACKBONE = "backbone"


def merge(
    initial: Mapping[str, Any], loaded: Mapping[str, Any], *, strict: bool = True
) -> tuple[Variables, Summary]:
    """Return the initial variables with all that can be taken from others.

    Strict demands the whole encoder. It grants what transfer learning needs: a decoder
    or head that only one of the two networks has, and a last layer that is missing or
    for another number of classes; these are left as initialised, and the summary tells.

    Args:
      initial: Variables of the network to start, arrays or abstract arrays.
      loaded: Variables of a `SegNeXt`, an `MSCANClassifier` or an encoder.
      strict: Whether other differences are errors.

    Returns:
      The variables, in the types of ``initial``, and what became of each array.

    Raises:
      ValueError: If no array matches, or, when strict, if the two networks differ
        otherwise.
    """
    needed, given = flatten_dict(dict(initial)), flatten_dict(dict(loaded))
    merged, taken, reshaped = dict(needed), [], []
    for path, value in given.items():
        if path not in needed:
            continue
        if tuple(value.shape) != tuple(needed[path].shape):
            reshaped.append(path)
        else:
            merged[path] = value.astype(needed[path].dtype)
            taken.append(path)
    if not taken and not reshaped:
        raise ValueError(
            "the arrays to start from must be of the same kind of network: no array "
            f"matches; got {described(_named(given)) or 'none'}, needed "
            f"{described(_named(needed))}."
        )
    missing = [path for path in needed if path not in given]
    unexpected = [path for path in given if path not in needed]
    summary = Summary(
        loaded=tuple(map(_name, taken)),
        missing=tuple(map(_name, missing)),
        unexpected=tuple(map(_name, unexpected)),
        reshaped=tuple(
            Reshaped(_name(p), tuple(given[p].shape), tuple(needed[p].shape))
            for p in reshaped
        ),
    )
    if strict or not taken:
        _check(initial, loaded, missing, unexpected, reshaped, summary)
    return unflatten_dict(merged), summary


def _check(
    initial: Mapping[str, Any],
    loaded: Mapping[str, Any],
    missing: list[tuple[str, ...]],
    unexpected: list[tuple[str, ...]],
    reshaped: list[tuple[str, ...]],
    summary: Summary,
) -> None:
    """Refuse differences that transfer learning does not explain."""
    faults = [
        str(item)
        for path, item in zip(reshaped, summary.reshaped, strict=True)
        if not _is_last_layer(path)
    ]
    if faults:
        raise ValueError(
            f"arrays to start from must have the network's shapes: {len(faults)} have "
            f"not, first {listed(faults)}.{_remedy(initial, loaded)}"
        )
    ours, theirs = set(initial["params"]), set(loaded.get("params", {}))
    common = ours & theirs | {BACKBONE}
    for paths, fault in (
        (missing, "every array of the network must be given: missing are"),
        (unexpected, "every array given must be the network's: too many are"),
    ):
        faults = [
            _name(path)
            for path in paths
            if path[1] in common and not (paths is missing and _is_last_layer(path))
        ]
        if faults:
            raise ValueError(f"{fault} {listed(faults)}.{_remedy(initial, loaded)}")


def _is_last_layer(path: tuple[str, ...]) -> bool:
    return any(path[1 : 1 + len(module)] == module for module in CLASS_MODULES)


def _remedy(initial: Mapping[str, Any], loaded: Mapping[str, Any]) -> str:
    ours, theirs = source_of(initial), source_of(loaded)
    if ours and theirs and ours.variant_name != theirs.variant_name:
        return (
            f" The network is {ours.variant_name or 'of own sizes'}, the checkpoint "
            f"{theirs.variant_name or 'of own sizes'}: set config.model.variant, or "
            "take the other's checkpoint."
        )
    return f" Take a whole checkpoint of the same network, or {LENIENT}."


def _name(path: tuple[str, ...]) -> str:
    """Return a path without its collection, which the leaf tells."""
    return ".".join(path[1:])


def _named(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    return {_name(path): value for path, value in flat.items()}
