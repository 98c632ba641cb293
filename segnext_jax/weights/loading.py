"""From a run, a model folder or a checkpoint file to its weights.

Folders are read by `segnext_jax.checkpoints.reading`, files by `segnext_jax.convert`;
published networks (`published`) are fetched by name, those of the Hugging Face hub
(`hub`) by address.
"""

import dataclasses
import os
import pathlib

from absl import logging

from segnext_jax import convert
from segnext_jax.checkpoints import reading
from segnext_jax.checkpoints.reading import StoredModel
from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import naming
from segnext_jax.convert import files, folder
from segnext_jax.weights import hub, named, shared_folder
from segnext_jax.weights.published import PUBLISHED


def load(
    path: str | os.PathLike[str], which: str | int = reading.LATEST
) -> StoredModel:
    """Return weights of any kind of network, and say which they are.

    Args:
      path: A run's workdir, one of its checkpoints, a model folder, a file of PyTorch,
        safetensors, NumPy or JSeg, whose configuration is None; all of these also by
        their address in a bucket; or, where there is no such path, the name of a
        published network or ``hf://user/name[@revision]``.
      which: The checkpoint of a run: ``"latest"``, ``"best"`` or the number of a step.

    Raises:
      ValueError: If there are no weights at ``path``, or the weights are damaged.
    """
    path = find(path)
    if shared_folder.is_shared(path):
        _refuse_choice(path, which)
        with storage.local(path) as copy, naming(path, copy):
            stored = dataclasses.replace(shared_folder.read(copy), path=path)
    elif path.is_dir():
        stored = reading.read(path, which)
    else:
        _refuse_choice(path, which)
        with storage.local(path) as copy, naming(path, copy):
            stored = StoredModel(convert.from_file(copy).variables, None, path)
    logging.info("Weights: %s.", stored)
    return stored


def load_network(
    path: str | os.PathLike[str],
    which: str | int = reading.LATEST,
    dataset: str | None = None,
) -> StoredModel:
    """Return the weights of a segmentation network, with its configuration.

    Args:
      path: See `load`.
      which: See `load`.
      dataset: Whose classes a file knows; see `segnext_jax.convert.folder.convert`.

    Raises:
      ValueError: If there are no weights at ``path``, the weights are damaged, or they
        are those of another kind of network.
    """
    path = find(path)
    if path.is_dir():
        stored = load(path, which)
        if stored.config is not None and stored.config.task != "segmentation":
            raise ValueError(
                f"{path} must hold a segmentation network: it holds one of "
                f"{stored.config.task}. Start a training from it (config.init_from)."
            )
        return stored
    _refuse_choice(path, which)
    with storage.local(path) as copy, naming(path, copy):
        converted, config, _ = folder.convert(files.read(copy), dataset=dataset)
    stored = StoredModel(converted.variables, config, path)
    logging.info("Weights: %s.", stored)
    return stored


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return where weights are on disk; what has a name is fetched first.

    Raises:
      ValueError: If there are no such weights, or they cannot be fetched.
    """
    if not is_there(path):
        suggestion = named.suggestion(str(path))
        raise ValueError(
            f"the network to load must exist: {path} does not.{suggestion}"
        )
    found = storage.as_path(path)
    if found.exists():
        return found
    if hub.is_address(str(path)):
        return hub.fetch(str(path))
    return named.fetch(str(path))


def is_there(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path exists, or is the name of what can be fetched."""
    text = str(path)
    return storage.as_path(path).exists() or text in PUBLISHED or hub.is_address(text)


def _refuse_choice(path: pathlib.Path, which: str | int) -> None:
    if reading.parse_which(which) != reading.LATEST:
        raise ValueError(
            f"{path} is one {'model' if path.is_dir() else 'file'}, not the "
            f"checkpoints of a run: got {which} as the one to take. Leave it out."
        )
