"""Classification of photographs as a task: pre-training of the encoder.

The recipe is that of VAN, which the paper's encoders follow: RandAugment, mixup,
cutmix, random erasing, label smoothing. A run's workdir is what ``config.init_from`` of
a segmentation takes.
"""

import functools
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from segnext_jax.datasets.photographs import TRAIN_SPLIT, VAL_SPLIT
from segnext_jax.evaluation import report
from segnext_jax.evaluation.top_k import ClassificationMetrics, measure_classification
from segnext_jax.models.classifier import MSCANClassifier
from segnext_jax.ops import sharding
from segnext_jax.ops.photometric import normalize
from segnext_jax.pipeline.classification.batches import photograph_eval_batches
from segnext_jax.pipeline.classification.resized_crop import RandomResizedCrop
from segnext_jax.pipeline.classification.sources import open_photographs
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.training.monitor.metric_writer import MetricWriter
from segnext_jax.training.tasks.classification_step import classification_batch


# Of the module: another evaluation of the same network compiles nothing.
@functools.partial(jax.jit, static_argnames=("model", "mean", "std"))
def _apply(
    variables: Any,
    images: jax.Array,
    model: MSCANClassifier,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Any:
    return model.apply(variables, normalize(images, mean, std))


class Classification:
    """A network that gives each photograph a class; see `training.tasks.task.Task`."""

    main_metric = "top1"

    def __init__(self, config: ConfigDict, mesh: jax.sharding.Mesh):
        """Open the validation split.

        Raises:
          ValueError: If the devices cannot share the evaluation's batch evenly, or the
            photographs have other classes than ``config.data.classes``.
          FileNotFoundError: If the data set is not prepared.
        """
        sharding.check_batch_size(
            config.evaluation.batch_size, mesh, "evaluation.batch_size"
        )
        self._config = config
        self._mesh = mesh
        self._classes = config.data.classes
        self.model = MSCANClassifier.from_config(config.model, len(self._classes))
        self.prepare = classification_batch(
            config, len(self._classes), sharding.replicated(mesh)
        )
        self._val = open_photographs(config.data, self._classes, VAL_SPLIT)

    def make_loader(self) -> TrainLoader:
        """Return the training batches of this process."""
        return TrainLoader(
            open_photographs(self._config.data, self._classes, TRAIN_SPLIT),
            RandomResizedCrop.from_config(self._config),
            self._config,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def measure(
        self, variables: Any, writer: MetricWriter | None = None, step: int = 0
    ) -> ClassificationMetrics:
        """Return the metrics; there are no pictures."""
        del writer, step
        batches = photograph_eval_batches(
            self._val,
            batch_size=self._config.evaluation.batch_size,
            crop_size=self._config.data.crop_size,
            crop_share=self._config.classification.crop_share,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=self._config.data.num_threads,
        )
        data = self._config.data
        return measure_classification(
            functools.partial(
                *(_apply, variables), model=self.model, mean=data.mean, std=data.std
            ),
            batches,
            num_classes=len(self._classes),
            shard_fn=functools.partial(sharding.shard_batch, mesh=self._mesh),
        )

    def measure_draws(
        self, variables: Any, example_fn: None = None
    ) -> tuple[ClassificationMetrics, dict[str, Any]]:
        """Return the metrics; nothing is drawn."""
        del example_fn
        return self.measure(variables), {}

    def logged(self, metrics: ClassificationMetrics) -> dict[str, Any]:
        """Return top-1 and top-5; the classes may be a thousand."""
        return dict(metrics.summary())

    def write_results(
        self,
        metrics: ClassificationMetrics,
        step: int | None,
        workdir: pathlib.Path,
        **more: Any,
    ) -> None:
        """Log the metrics and write them into a folder."""
        report.write_classification_results(
            metrics, step, self._classes, workdir, **more
        )
