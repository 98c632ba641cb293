"""A model ready for use: a folder with arrays and their configuration.

A model's folder:

    config.json     the configuration
    model/          parameters and batch statistics
"""

import pathlib
from typing import Any

import orbax.checkpoint as ocp

from segnext_jax.checkpoints import arrays
from segnext_jax.cli.command import first_line
from segnext_jax.cli.whole_files import whole_folder

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
    """
    directory = pathlib.Path(directory).absolute()
    if directory.exists() and not overwrite:
        raise ValueError(
            f"the folder for the model must be new: {directory} exists. Delete it or "
            "name another."
        )
    with whole_folder(directory) as partial:
        with ocp.Checkpointer(arrays.array_handler()) as checkpointer:
            checkpointer.save(partial / MODEL, ocp.args.PyTreeSave(variables))
        (partial / CONFIG_FILE).write_text(config_text)


def is_model(directory: str | pathlib.Path) -> bool:
    """Tell whether a folder is one that `save_model` wrote."""
    directory = pathlib.Path(directory)
    return (directory / CONFIG_FILE).is_file() and (directory / MODEL).is_dir()


def load_model(directory: str | pathlib.Path, expected: Any = None) -> tuple[Any, str]:
    """Return (variables, configuration text) of a folder that `save_model` wrote.

    Args:
      directory: The folder.
      expected: Tree of `jax.ShapeDtypeStruct` with shardings, see
        `arrays.abstract`. None: arrays as they were stored, on the first device.

    Raises:
      ValueError: If it is not such a folder, or its arrays are not the expected.
    """
    directory = pathlib.Path(directory).absolute()
    if not is_model(directory):
        raise ValueError(
            f"{directory} must be a model's folder with {CONFIG_FILE} and {MODEL}/, "
            "as python -m segnext_jax.convert writes it: at least one is missing."
        )
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            variables = checkpointer.restore(directory / MODEL, expected)
        except (ValueError, KeyError) as error:
            reason = first_line(error)
            raise ValueError(
                f"the model in {directory} is not that of the configuration: {reason} "
                "Correct config.model or config.data.name."
            ) from error
    return variables, (directory / CONFIG_FILE).read_text()
