"""Published networks by name: fetched once, verified, converted, kept."""

import difflib
import os
import pathlib

from absl import logging
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.cli import command
from segnext_jax.cli.download import alone, checksum_fault, download
from segnext_jax.convert import files, folder
from segnext_jax.weights.published import PUBLISHED, Published

# Address of a folder that holds the files by their names, instead of their authors'.
MIRROR = "SEGNEXT_JAX_MIRROR"


def fetch(name: str) -> pathlib.Path:
    """Return the model folder of a published network; see `fetch_file`.

    Raises:
      ValueError: If the name is not in `PUBLISHED`, or the network cannot be fetched.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name} is no published network.{suggestion(name)}")
    return fetch_file(PUBLISHED[name], cache())


def fetch_file(one: Published, kept: pathlib.Path) -> pathlib.Path:
    """Return the model folder of a published file, made unless it is there.

    A file that somebody has put into the folder by hand is taken instead of fetched.

    Args:
      one: Which.
      kept: Folder where downloads and converted networks are kept.

    Raises:
      ValueError: If the file cannot be fetched, verified or converted.
    """
    target = kept / one.name
    # If a training has several processes, one makes the folder and the others wait.
    with alone(kept / f".{one.name}.lock"):
        if not model_folder.is_model(target):
            _make(one, kept, target)
    return target


def _make(one: Published, kept: pathlib.Path, target: pathlib.Path) -> None:
    path = kept / one.file_name
    is_by_hand = path.exists()
    try:
        if not is_by_hand:
            _download(one, path)
        elif fault := checksum_fault(path, one.checksum):
            raise ValueError(f"{path} is not the published file: {fault}.")
        content = files.read(path)
    except ValueError as error:
        if isinstance(error.__cause__, ImportError):
            raise  # The file is good, and need not come again.
        if not is_by_hand:
            path.unlink(missing_ok=True)
        raise ValueError(
            f"{error} By hand: fetch {one.url} (named on {one.page}) and put it at "
            f"{path}."
        ) from error
    converted, config, remarks = folder.convert(
        content, config=configuration(one), dataset=one.dataset or None
    )
    folder.write(target, converted.variables, config, overwrite=True)
    for remark in remarks:
        logging.info("%s: %s.", one.name, remark)
    if not is_by_hand:
        path.unlink()


def _download(one: Published, path: pathlib.Path) -> None:
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    url = f"{mirror}/{one.file_name}" if mirror else one.url
    logging.info("%s: fetching %s to %s.", one.name, url, path)
    download(url, path, one.checksum)


def configuration(one: Published) -> ConfigDict:
    """Return the configuration of a published network; the file tells the rank."""
    config = config_lib.base_config()
    config.model.variant = one.name.split("-")[1]
    config.data.name = one.dataset or config.data.name
    return config_lib.with_overrides(config, one.settings, one.name)


def cache() -> pathlib.Path:
    """Return the folder of published networks.

    Raises:
      ValueError: If the user has no folder for caches.
    """
    caches = command.cache_folder()
    if caches is None:
        raise ValueError(
            "published networks are kept in the user's cache folder, and there is no "
            "home: set XDG_CACHE_HOME to a folder."
        )
    return caches / "weights"


def suggestion(name: str) -> str:
    """Return what is meant by a name that is neither a path nor published."""
    close = difflib.get_close_matches(name, PUBLISHED, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"{meant} segnext-jax weights lists the published networks."
