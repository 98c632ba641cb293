"""A model ready for use: a folder with arrays and their configuration.

A model's folder:

    config.json     the configuration
    model/          parameters and batch statistics
    checksums.json  size and CRC-32 of each of these files

`segnext_jax.checkpoints.reading` reads it.
"""

import pathlib
from typing import Any

import orbax.checkpoint as ocp

from segnext_jax.checkpoints import arrays, integrity
from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import reason, whole_folder

CONFIG_FILE = "config.json"
MODEL = "model"


def save_model(
    directory: str | pathlib.Path,
    variables: Any,
    config_text: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model for use: parameters, batch statistics and configuration.

    Args:
      directory: A new folder; written under another name first, so that it is either
        whole or not there.
      variables: ``{"params": ..., "batch_stats": ...}``.
      config_text: The configuration, as `segnext_jax.config.to_json` gives it.
      overwrite: Whether it may take the place of an older folder.

    Raises:
      ValueError: If ``directory`` exists and may not be replaced.
      OSError: If it cannot be written.
    """
    directory = storage.as_path(directory).absolute()
    if directory.exists() and not overwrite:
        raise ValueError(
            f"the folder for the model must be new: {directory} exists. Delete it or "
            "name another."
        )
    with whole_folder(directory) as partial:
        try:
            with ocp.Checkpointer(arrays.array_handler()) as checkpointer:
                checkpointer.save(partial / MODEL, ocp.args.PyTreeSave(variables))
        # Orbax raises errors of many types.
        except Exception as error:
            raise OSError(
                f"{directory} could not be written: {reason(error)}. Make room, or "
                "name another folder."
            ) from error
        (partial / CONFIG_FILE).write_text(config_text)
        integrity.seal(partial)


def is_model(directory: str | pathlib.Path) -> bool:
    """Tell whether a folder is one that `save_model` wrote."""
    directory = storage.as_path(directory)
    return (directory / CONFIG_FILE).is_file() and (directory / MODEL).is_dir()
