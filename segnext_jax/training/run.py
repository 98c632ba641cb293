"""A run, opened to train: its folder, data, network and starting weights."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from segnext_jax import convert, weights
from segnext_jax.checkpoints import reading, run_folder
from segnext_jax.checkpoints.bucket_run import BucketRun
from segnext_jax.checkpoints.lock import WriterLock
from segnext_jax.cli import storage
from segnext_jax.models.initialization import initialize
from segnext_jax.ops import sharding
from segnext_jax.pipeline.stream import BatchStream
from segnext_jax.training.tasks.task import Task, make_task


@dataclasses.dataclass(frozen=True)
class Run:
    """Parts of a run before its first step.

    Attributes:
      config: The configuration, which names the classes.
      workdir: The run's folder, which this training alone writes into.
      lock: The lock of the workdir.
      bucket: Where the workdir is brought, if it is only the local side of a run in a
        bucket.
      task: Data, network and metrics.
      loader: The training batches, at the first one.
      mesh: The devices.
      variables: The starting weights of a run without a checkpoint; else None.
      differing: Fields that give an evaluation other numbers than the stored ones.
    """

    config: ConfigDict
    workdir: pathlib.Path
    lock: WriterLock | BucketRun
    bucket: BucketRun | None
    task: Task
    loader: BatchStream
    mesh: jax.sharding.Mesh
    variables: dict[str, Any] | None
    differing: dict[str, Any]

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: ConfigDict,
        workdir: pathlib.Path,
        bucket: BucketRun | None = None,
    ) -> Iterator["Run"]:
        """Open a new run or an interrupted one; claim and lock the run's folder.

        Everything that a user can get wrong is checked before the folder is made.

        Args:
          config: The configuration.
          workdir: The run's folder, made when missing.
          bucket: What has locked it already, if it belongs to a run in a bucket.

        Raises:
          ValueError: If the workdir belongs to another configuration, another training
            writes into it, the devices cannot share a batch evenly, or the weights to
            start from do not exist or do not fit.
          FileNotFoundError: If the data set is not prepared.
        """
        config = run_folder.with_classes(config, workdir)
        _check_start(config, workdir)
        mesh = sharding.make_mesh(config.mesh.fsdp)
        sharding.check_batch_size(
            config.batch_size, mesh, "batch_size", config.accumulate_steps
        )
        task = make_task(config, mesh)
        loader = task.make_loader()
        is_new = not reading.checkpoint_folders(workdir)
        variables = initial_variables(config, task.model) if is_new else None
        _claim(config, workdir)
        with contextlib.ExitStack() as stack:
            lock = bucket or stack.enter_context(
                WriterLock(workdir, is_writing=jax.process_index() == 0)
            )
            stored = reading.stored_config(workdir)
            differing = run_folder.differing_fields(config, stored)
            yield cls(
                *(config, workdir, lock, bucket, task, loader, mesh, variables),
                differing,
            )


def _check_start(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse a new run whose starting weights are missing, before it has a workdir."""
    start = config.init_from
    if start and not weights.is_there(start) and not workdir.exists():
        raise ValueError(
            "config.init_from must be an existing file or folder of weights, or the "
            f"name of a published network: {storage.as_path(start).absolute()} does "
            "not exist. Run first what leaves it there (see the config's docstring), "
            f"or correct the path.{weights.suggestion(start)}"
        )


def _claim(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Claim the workdir in one process; the others check what it wrote."""
    if jax.process_index() == 0:
        run_folder.claim(config, workdir)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("workdir is claimed")
    if jax.process_index() != 0:
        run_folder.claim(config, workdir)


def initial_variables(config: ConfigDict, model: nn.Module) -> dict[str, Any]:
    """Return random weights, or those of ``config.init_from`` as far as they fit.

    Raises:
      ValueError: If no array fits, or the encoder does not fit; see
        `segnext_jax.convert.merge`.
    """
    if not config.init_from:
        logging.info("config.init_from is empty: starting from random weights.")
        return initialize(model, config.seed)
    start = weights.load(config.init_from, config.init_which)  # Or refused at once.
    drawn = initialize(model, config.seed)
    variables, summary = convert.merge(drawn, start.variables)
    logging.info("Starting from %s: %s", start, summary)
    return variables
