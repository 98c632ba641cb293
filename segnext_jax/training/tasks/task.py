"""What a run is to learn: the part of a training that depends on the task."""

import pathlib
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from segnext_jax.pipeline.stream import BatchStream
from segnext_jax.training.monitor.metric_writer import MetricWriter
from segnext_jax.training.step import PrepareFn
from segnext_jax.training.tasks.classification import Classification
from segnext_jax.training.tasks.segmentation import Segmentation


@runtime_checkable
class Metrics(Protocol):
    """The result of an evaluation."""

    def summary(self) -> dict[str, float]:
        """Return the numbers that are logged, shares in 0..1."""
        ...


@runtime_checkable
class Task(Protocol):
    """Data, network, loss and metrics that belong together.

    A task is made from the mesh of devices and a configuration that names the classes.
    The task opens the validation split.

    Attributes:
      main_metric: Name of the metric by which the best checkpoint is chosen.
      model: The network.
      prepare: What a training step begins with; see `training.step.make_step`.
    """

    main_metric: str
    model: nn.Module
    prepare: PrepareFn

    def make_loader(self) -> BatchStream:
        """Return the training batches of this process."""
        ...

    def measure(
        self, variables: Any, writer: MetricWriter | None = None, step: int = 0
    ) -> Metrics:
        """Return the metrics on the validation split.

        Args:
          variables: ``{"params": ..., "batch_stats": ...}``.
          writer: Takes pictures, if the task has any. None: there are none.
          step: The step of these weights, under which the pictures are written.
        """
        ...

    def measure_draws(
        self, variables: Any, example_fn: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the metrics, and what else to write: the spread over draws.

        Args:
          variables: ``{"params": ..., "batch_stats": ...}``.
          example_fn: Gets each image of a segmentation; `evaluator.ExampleFn`.
        """
        ...

    def logged(self, metrics: Any) -> dict[str, Any]:
        """Return what a training logs of an evaluation: shares, and shares by class."""
        ...

    def write_results(
        self, metrics: Any, step: int | None, workdir: pathlib.Path, **more: Any
    ) -> None:
        """Log metrics in full and write them, with ``more``, into a folder."""
        ...


TASKS = {"segmentation": Segmentation, "classification": Classification}


def make_task(config: ConfigDict, mesh: jax.sharding.Mesh) -> Task:
    """Return the task of a configuration that names its classes.

    Raises:
      ValueError: If the devices cannot share a batch evenly.
      FileNotFoundError: If the data set is not prepared.
    """
    return TASKS[config.task](config, mesh)
