"""The mean of several checkpoints: one network from the last ones of a run.

Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", UAI 2018.
Differs: The running statistics of BatchNorm are averaged, too, not counted anew on the
training images, which the command does not have.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from segnext_jax.checkpoints import reading
from segnext_jax.checkpoints.reading import StoredModel
from segnext_jax.convert.summary import listed
from segnext_jax.convert.weights import Variables
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.models.segnext import SegNeXt


def average(
    paths: Sequence[pathlib.Path], which: str | int = reading.LATEST
) -> tuple[Variables, list[StoredModel]]:
    """Return the mean of all arrays, taken in float64, and what it is of.

    Args:
      paths: Runs, checkpoints of runs, model folders.
      which: The checkpoint that is taken of each run; see `reading.read`.

    Raises:
      ValueError: If a checkpoint cannot be read, comes twice, or is of another network.
    """
    sums: dict[tuple[str, ...], np.ndarray] = {}
    models: list[StoredModel] = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(
                f"checkpoints to average must be folders: {path} is none. Convert a "
                "file to a folder first."
            )
        stored = reading.read(path, which)
        if models:
            _check(models[0], stored, models)
        for name, value in flatten_dict(stored.variables).items():
            sums[name] = sums.get(name, 0) + value.astype(np.float64)
        models.append(stored)
    first = flatten_dict(models[0].variables)
    means = {
        name: (total / len(models)).astype(first[name].dtype)
        for name, total in sums.items()
    }
    return unflatten_dict(means), models


def _check(first: StoredModel, other: StoredModel, models: list[StoredModel]) -> None:
    """Refuse a checkpoint that is not another one of the same network."""
    if (other.path, other.step) in [(model.path, model.step) for model in models]:
        raise ValueError(
            f"checkpoints to average must be different ones: {other} comes twice. Name "
            "each by its folder, RUN/checkpoints/STEP."
        )
    shapes = [
        {".".join(path): np.shape(leaf) for path, leaf in flatten_dict(tree).items()}
        for tree in (first.variables, other.variables)
    ]
    different = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
    if different:
        raise ValueError(
            f"checkpoints to average must be of one network: {first} and {other} "
            f"differ in {listed(dict.fromkeys(different))}."
        )
    if _meaning(first.config) != _meaning(other.config):
        raise ValueError(
            "checkpoints to average must be of one network: the classes or "
            f"config.model.rank of {first} and {other} differ."
        )


def _meaning(config: ConfigDict | None) -> tuple[object, ...]:
    """Return what the arrays' shapes do not tell."""
    assert config is not None  # Folders have one.
    if config.task == "classification":
        return tuple(config.data.classes)
    variant = SegNeXt.from_config(config.model, num_classes=1).variant
    return *resolve_spec(config.data).classes, variant.rank
