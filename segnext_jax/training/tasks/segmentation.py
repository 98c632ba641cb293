"""Semantic segmentation as a task: its data, network, loss, metrics and pictures."""

import pathlib
from typing import Any

import cv2
import jax
from ml_collections import ConfigDict

from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation import report
from segnext_jax.evaluation.evaluator import ExampleFn
from segnext_jax.evaluation.metrics import Metrics
from segnext_jax.images import pictures
from segnext_jax.images.masks import check_names
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.pipeline.sources import check_labelled, open_split
from segnext_jax.pipeline.transforms import RandomScaleCropFlip
from segnext_jax.training.monitor.metric_writer import MetricWriter
from segnext_jax.training.tasks.segmentation_step import segmentation_batch
from segnext_jax.training.tasks.validator import Validator


class Segmentation:
    """A network that gives each pixel a class; see `training.tasks.task.Task`."""

    main_metric = "mIoU"

    def __init__(self, config: ConfigDict, mesh: jax.sharding.Mesh):
        """Open the validation split.

        Raises:
          ValueError: If the devices cannot share the evaluation's batch evenly, there
            is one class only, or names and ids of the classes do not agree.
          FileNotFoundError: If the data set is not prepared.
        """
        self._config = config
        self._spec = resolve_spec(config.data)
        if self._spec.num_classes < 2:
            raise ValueError(
                "a network learns to tell at least two classes apart: got only "
                f"{self._spec.classes[0]!r}, with which every pixel is right. Add the "
                "rest as a class, for instance 'background'."
            )
        check_names(self._spec.classes, config.data.zero_is_ignore)
        self.model = SegNeXt.from_config(config.model, self._spec.num_classes)
        self.prepare = segmentation_batch(config, self._spec.ignore_label)
        self._validator = Validator(config, self.model, mesh)

    def make_loader(self) -> TrainLoader:
        """Return the training batches of this process.

        Raises:
          ValueError: If the masks have no labelled pixel.
        """
        data, spec = self._config.data, self._spec
        split = data.train_split or spec.train_split
        source = open_split(data, spec, split)
        check_labelled(source, spec, split)
        return TrainLoader(
            source,
            RandomScaleCropFlip.from_config(data, spec),
            self._config,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def measure(
        self, variables: Any, writer: MetricWriter | None = None, step: int = 0
    ) -> Metrics:
        """Return the metrics, and draw some images with their predictions."""
        if writer is None:
            return self._validator.run(variables)

        def draw(name: str, image: Any, label: Any, prediction: Any) -> None:
            height, width = label.shape
            image = cv2.resize(image, (width, height))  # From the network's input size.
            picture = pictures.side_by_side(image, label, prediction, self._spec)
            writer.write_overlay(step, name, picture)

        return self._validator.run(variables, draw)

    def measure_draws(
        self, variables: Any, example_fn: ExampleFn | None = None
    ) -> tuple[Metrics, dict[str, Any]]:
        """Return the metrics, and the spread over ``config.evaluation.num_bases``."""
        return self._validator.run_draws(variables, example_fn)

    def logged(self, metrics: Metrics) -> dict[str, Any]:
        """Return all means, and IoU by class."""
        return metrics.to_log(self._spec.classes)

    def write_results(
        self, metrics: Metrics, step: int | None, workdir: pathlib.Path, **more: Any
    ) -> None:
        """Log the table of metrics and write it into a folder."""
        report.write_results(metrics, step, self._spec.classes, workdir, **more)
