"""Where prepared data sets lie on disk, for the builders and for the input pipeline."""

import json
import os
from pathlib import Path
from typing import Any

from segnext_jax.datasets.pairs import one_line
from segnext_jax.datasets.spec import DatasetSpec


def default_data_dir() -> Path:
    """Return the folder of all prepared data sets when none is named.

    Returns:
      `$TFDS_DATA_DIR` if it is set and not empty, else `~/tensorflow_datasets`.

    Raises:
      ValueError: If the variable is not set and the user has no home folder.
    """
    folder = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{folder} is where prepared data sets lie, and this user has no home "
            "folder. Set TFDS_DATA_DIR, or give --config.data.data_dir (to prepare: "
            "--data_dir)."
        ) from None


def resolve_data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return `data_dir` with `~` expanded, or the default when it is None or empty."""
    return Path(data_dir).expanduser() if data_dir else default_data_dir()


def prepared_dir(
    spec: DatasetSpec, data_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Return the folder that holds a prepared data set.

    Args:
      spec: The data set.
      data_dir: Folder of all prepared data sets; None for `default_data_dir()`.

    Returns:
      `<data_dir>/<name>/<version>`; it exists only if the preparation finished.
    """
    return resolve_data_dir(data_dir) / spec.name / spec.version


def is_prepared(folder: Path) -> bool:
    """Return whether a folder returned by `prepared_dir` holds a whole data set."""
    return (folder / "dataset_info.json").is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return what the builder of a prepared set has noted: classes, colours, ...

    Args:
      folder: Folder of the set.

    Raises:
      ValueError: If the file is missing or damaged.
    """
    try:
        metadata = json.loads((folder / "metadata.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(folder, error) from None
    if not isinstance(metadata, dict):
        raise damaged(folder, ValueError("metadata.json holds no dictionary"))
    return metadata


def damaged(folder: Path, error: Exception) -> ValueError:
    """Return the error for a prepared set that cannot be read.

    Args:
      folder: Folder of the set.
      error: What a library has raised.
    """
    reason = one_line(error)[:200]
    return ValueError(
        f"{folder} must be a whole prepared data set: it cannot be read ({reason}). "
        "Delete the folder and prepare the set again."
    )


def prepare_command(
    spec: DatasetSpec, data_dir: str | os.PathLike[str] | None = None
) -> str:
    """Return the command that prepares a data set, for error messages.

    Args:
      spec: The data set.
      data_dir: Folder of all prepared data sets; None for `default_data_dir()`.
    """
    own = f" --name={spec.name} --raw_dir=FOLDER" if spec.builder else ""
    return (
        f"segnext-jax prepare {spec.builder or spec.name}{own} "
        f"--data_dir={resolve_data_dir(data_dir)}"
    )
