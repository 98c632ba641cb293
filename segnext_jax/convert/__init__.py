"""Weights from and to PyTorch: official SegNeXt, mmsegmentation 1.x, JSeg.

`from_path` reads Flax variables from wherever they lie, `merge` starts a network from
them, `to_state_dict` gives them PyTorch's names. torch is imported only when one of its
files is written.
"""

import pathlib

from ml_collections import ConfigDict

from segnext_jax.convert import files, folder
from segnext_jax.convert.detect import Source
from segnext_jax.convert.merging import merge
from segnext_jax.convert.summary import Reshaped, Summary
from segnext_jax.convert.weights import (
    Converted,
    Variables,
    from_state_dict,
    to_state_dict,
)
from segnext_jax.models.segnext import Variant


def from_file(
    path: str | pathlib.Path,
    *,
    variant: Variant | None = None,
    num_classes: int | None = None,
    strict: bool = True,
) -> Converted:
    """Return the Flax variables of a checkpoint file; see `from_state_dict`.

    Raises:
      ValueError: If the file cannot be read (see `files.read`) or does not fit.
    """
    try:
        return from_state_dict(
            files.read(path), variant=variant, num_classes=num_classes, strict=strict
        )
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def from_path(path: str | pathlib.Path) -> Variables:
    """Return the Flax variables of a checkpoint file, model folder or run's workdir.

    Raises:
      ValueError: If it is none of these, or the file does not fit.
    """
    path = pathlib.Path(path)
    return folder.read(path)[0] if path.is_dir() else from_file(path).variables


def read_model(
    path: str | pathlib.Path, dataset: str | None = None
) -> tuple[Variables, ConfigDict]:
    """Return variables and configuration of a file, model folder or run's workdir.

    Args:
      path: The file or folder.
      dataset: Whose classes a checkpoint file knows; see `folder.convert`.

    Raises:
      ValueError: If it is none of these, is no segmentation network, or the file does
        not fit.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        variables, config = folder.read(path)
        if config.task != "segmentation":
            raise ValueError(
                f"{path} must hold a segmentation network: it holds one of "
                f"{config.task}. Start a training from it (config.init_from)."
            )
        return variables, config
    converted, config, _ = folder.convert(files.read(path), dataset=dataset)
    return converted.variables, config


__all__ = [
    "Converted",
    "Reshaped",
    "Source",
    "Summary",
    "Variables",
    "from_file",
    "from_path",
    "from_state_dict",
    "merge",
    "read_model",
    "to_state_dict",
]
