"""Checkpoints: training states in a run's workdir, and models ready for use.

A run's workdir:

    config.json                     the configuration it was started with
    checkpoints/<step>/model        parameters and batch statistics
    checkpoints/<step>/optimizer    step and moments
    checkpoints/<step>/iterator     the input pipeline's position
    metrics.jsonl, tensorboard/, overlays/

The model lies apart from the optimizer, so that evaluation and prediction read no more
than they need, on any number of devices.
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

CONFIG_FILE = "config.json"
_CHECKPOINTS = "checkpoints"
_MODEL = "model"


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: str | pathlib.Path, num_kept: int = 1):
        """Open, and create when missing, the checkpoints of a workdir.

        Args:
          workdir: The run's folder.
          num_kept: Number of latest checkpoints that are kept.
        """
        self._workdir = pathlib.Path(workdir).absolute()
        self._manager = ocp.CheckpointManager(
            self._workdir / _CHECKPOINTS,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=num_kept,
                # What a killed run had half written.
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self, step: int, *, model: Any, optimizer: Any, iterator: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint; returns as soon as the arrays are copied.

        Args:
          step: Number of finished steps.
          model: Tree with parameters and batch statistics.
          optimizer: Tree with the rest of the training state.
          iterator: JSON values that place the input pipeline.
        """
        if step == self.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model),
                optimizer=ocp.args.StandardSave(optimizer),
                iterator=ocp.args.JsonSave(dict(iterator)),
            ),
        )

    def restore(self, *, model: Any, optimizer: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return (model, optimizer, iterator) of the newest checkpoint.

        Args:
          model: Tree of `jax.ShapeDtypeStruct` with shardings: what is expected, and
            where it shall lie.
          optimizer: The same for the rest of the state.

        Raises:
          ValueError: If there is no checkpoint, or its arrays are not the expected.
        """
        args = ocp.args.Composite(
            model=ocp.args.StandardRestore(model),
            optimizer=ocp.args.StandardRestore(optimizer),
            iterator=ocp.args.JsonRestore(),
        )
        restored = self._restore(args)
        return restored["model"], restored["optimizer"], restored["iterator"]

    def restore_model(self, model: Any) -> Any:
        """Return the model alone; see `restore`."""
        args = ocp.args.Composite(model=ocp.args.StandardRestore(model))
        return self._restore(args)["model"]

    def _restore(self, args: ocp.args.Composite) -> Any:
        step = self.latest_step()
        if step is None:
            raise ValueError(
                f"{self._workdir} must hold a finished checkpoint: none was found. "
                "Train first (--mode=train), or correct --workdir."
            )
        try:
            return self._manager.restore(step, args=args)
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"checkpoint {step} in {self._workdir} cannot be restored: {reason} "
                f"Delete {self._workdir / _CHECKPOINTS / str(step)} to go on from the "
                "one before, or begin a new run with another --workdir."
            ) from error

    def wait(self) -> None:
        """Return when all checkpoints are on disk; raise what went wrong in writing."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and release threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def save_model(directory: str | pathlib.Path, variables: Any, config_text: str) -> None:
    """Write a model for use: parameters, batch statistics and configuration.

    Args:
      directory: A new folder; written under another name first, so that it is either
        whole or not there.
      variables: ``{"params": ..., "batch_stats": ...}``.
      config_text: The configuration, as `segnext_jax.config.to_json` gives it.

    Raises:
      ValueError: If ``directory`` exists.
    """
    directory = pathlib.Path(directory).absolute()
    if directory.exists():
        raise ValueError(
            f"the folder for the model must be new: {directory} exists. Delete it or "
            "name another."
        )
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / _MODEL, variables)
    (partial / CONFIG_FILE).write_text(config_text)
    partial.rename(directory)


def is_model(directory: str | pathlib.Path) -> bool:
    """Tell whether a folder is one that `save_model` wrote."""
    directory = pathlib.Path(directory)
    return (directory / CONFIG_FILE).is_file() and (directory / _MODEL).is_dir()


def load_model(directory: str | pathlib.Path, expected: Any = None) -> tuple[Any, str]:
    """Return (variables, configuration text) of a folder that `save_model` wrote.

    Args:
      directory: The folder.
      expected: Tree of `jax.ShapeDtypeStruct` with shardings, see `abstract`. None:
        arrays as they were stored, on the first device.

    Raises:
      ValueError: If it is not such a folder, or its arrays are not the expected.
    """
    directory = pathlib.Path(directory).absolute()
    if not is_model(directory):
        raise ValueError(
            f"{directory} must be a model's folder with {CONFIG_FILE} and {_MODEL}/, "
            "as python -m segnext_jax.convert writes it: at least one is missing."
        )
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            variables = checkpointer.restore(directory / _MODEL, expected)
        except (ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"the model in {directory} is not that of the configuration: {reason} "
                "Correct config.model or config.data.name."
            ) from error
    return variables, (directory / CONFIG_FILE).read_text()


def abstract(tree: Any, sharding: Any) -> Any:
    """Return shapes and types of a tree, to be restored with these shardings.

    Args:
      tree: Arrays, or their shapes.
      sharding: One for all, or a tree of them; not that of the saving run, in general.
    """
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        tree,
        jax.tree.broadcast(sharding, tree),
    )
