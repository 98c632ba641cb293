"""A run's folder: which configuration it belongs to, and the results in it."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from segnext_jax import __version__
from segnext_jax import config as config_lib
from segnext_jax.checkpoints import json_files
from segnext_jax.checkpoints.model_folder import CONFIG_FILE
from segnext_jax.checkpoints.reading import checkpoint_folders, stored_config
from segnext_jax.cli.whole_files import whole_file
from segnext_jax.config.overrides import differences, flatten
from segnext_jax.config.rules import changes_numbers
from segnext_jax.datasets import SPECS
from segnext_jax.datasets.photographs import photograph_classes
from segnext_jax.datasets.resolve import class_table, resolve_spec
from segnext_jax.models.segnext import SegNeXt


def with_classes(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """Return a copy that names the classes itself, unless `SPECS` has the data set.

    The classes are those of the configuration, else those of the run in the workdir,
    else those that come with the data. Opening the data checks that the data have the
    same classes.

    Raises:
      FileNotFoundError: If the data are missing or have no classes.txt.
      ValueError: If their classes contradict each other.
    """
    config = config.copy_and_resolve_references()
    data, own = config.data, _stored(workdir)
    stored = own.data if own is not None else data
    if config.task == "classification":
        data.classes = data.classes or stored.classes or photograph_classes(data)
        return config
    if data.name in SPECS:
        return config
    table = class_table(data if data.classes else stored if stored.classes else data)
    for field in ("classes", "colours", "ignore_colours"):
        data[field] = getattr(table, field)
    return config


def claim(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Write the configuration of a new run, or check that it is the run's own.

    Fields that change nothing in the course of the training may differ; they are
    `segnext_jax.config.RESUMABLE_FIELDS`.

    Raises:
      ValueError: If the workdir belongs to a run of another configuration, or is not
        the folder of a run.
    """
    if os.path.lexists(workdir) and not workdir.is_dir():
        raise ValueError(
            f"--workdir must be a folder: {workdir} is a file, or a link to nothing. "
            "Name another."
        )
    path, stored = workdir / CONFIG_FILE, _stored(workdir)
    if stored is not None:
        lines = differences(stored, config, ignore=config_lib.RESUMABLE_FIELDS)
        _refuse(
            lines,
            workdir,
            "Restore these fields to go on with it, or give another --workdir for a "
            f"new run, which may begin with its weights: --config.init_from={workdir}.",
        )
        if not json_files.is_damaged(path):
            return
    elif not path.exists() and workdir.exists() and any(workdir.iterdir()):
        raise ValueError(
            f"--workdir must be new, empty, or a run's own folder: {workdir} holds "
            "other files. Name another folder."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with whole_file(path, is_durable=True) as partial:
        partial.write_text(config_lib.to_json(config))


def _stored(workdir: pathlib.Path) -> ConfigDict | None:
    """Return the configuration of a run; None: there is no run that could go on."""
    path = workdir / CONFIG_FILE
    if not path.exists():
        return None
    if json_files.is_damaged(path) and not checkpoint_folders(workdir):
        logging.warning("%s is damaged; there is no checkpoint: written anew.", path)
        return None
    return stored_config(workdir)


def about(config: ConfigDict) -> dict[str, Any]:
    """Return where a checkpoint comes from: version of the code, configuration."""
    return {
        "version": __version__,
        "commit": _commit(),
        "config": json.loads(config_lib.to_json(config)),
    }


@functools.cache
def _commit() -> str:
    """Return the commit of a checkout, "-dirty" if files differ; empty elsewhere."""
    folder = pathlib.Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return ""
    command = [
        "git",
        "-C",
        str(folder),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def check_network(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Check that the network of a run's checkpoints is that of a configuration.

    Raises:
      ValueError: If the network is another one, or the workdir is not the folder of a
        run.
    """
    stored, given = _network(stored_config(workdir)), _network(config)
    lines = [
        f"{name} is {stored[name]} there, {given[name]} here"
        for name in stored
        if stored[name] != given[name]
    ]
    _refuse(lines, workdir, "Evaluate it with the config that it was trained with.")


def _network(config: ConfigDict) -> dict[str, Any]:
    """Return what decides which arrays a network has and what it does with them."""
    variant = SegNeXt.from_config(config.model, num_classes=1).variant
    sizes = dataclasses.asdict(variant)
    del sizes["drop_path_rate"]  # Training alone uses it.
    if config.task == "classification":
        num_classes = len(config.data.classes)
    else:
        num_classes = resolve_spec(config.data).num_classes
    return {
        "config.task": config.task,
        **{f"config.model.{name}": size for name, size in sizes.items()},
        "the number of classes": num_classes,
    }


def _refuse(lines: Sequence[str], workdir: pathlib.Path, remedy: str) -> None:
    if lines:
        raise ValueError(
            f"{workdir} belongs to a run of another configuration: {'; '.join(lines)}. "
            f"{remedy}"
        )


def differing_fields(config: ConfigDict, stored: ConfigDict) -> dict[str, Any]:
    """Return the fields that give an evaluation other numbers than the run's, and log.

    Args:
      config: The configuration.
      stored: That of the run.

    Returns:
      The value of the run and the one here, by field.
    """
    own = dict(flatten(stored))
    differing = {
        field: {"run": own[field], "here": value}
        for field, value in flatten(config)
        if changes_numbers(field) and value != own[field]
    }
    for field, values in differing.items():
        logging.info(
            "config.%s is %r in the run, %r here.", field, values["run"], values["here"]
        )
    return differing


def settings(
    config: ConfigDict, which: str | int, differing: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what made the numbers of an evaluation, as JSON values.

    Args:
      config: The configuration.
      which: The checkpoint that was asked for.
      differing: See `differing_fields`.
    """
    fields = {
        field: value for field, value in flatten(config) if changes_numbers(field)
    }
    return {"which": which, "differing": dict(differing), "fields": fields}
