"""Evaluate a network on the validation split of its data set."""

import functools
import itertools
import pathlib
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import checkpoint, sharding
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.evaluator import ExampleFn, evaluate
from segnext_jax.evaluation.metrics import Metrics
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops.photometric import normalize
from segnext_jax.pipeline.evaluation_batches import eval_batches
from segnext_jax.pipeline.sources import open_split
from segnext_jax.training import workdir as workdir_lib


class Validator:
    """The validation split and how a network is applied to it."""

    def __init__(self, config: ConfigDict, model: SegNeXt, mesh: jax.sharding.Mesh):
        """Open the split.

        Raises:
          ValueError: If the devices cannot share the evaluation's batch evenly.
          FileNotFoundError: If the data set is not prepared.
        """
        sharding.check_batch_size(
            config.evaluation.batch_size, mesh, "evaluation.batch_size"
        )
        self._config = config
        self._mesh = mesh
        self._spec = resolve_spec(config.data)
        self._source = open_split(config.data, self._spec, self._spec.val_split)
        mean, std = config.data.mean, config.data.std
        self._apply = jax.jit(
            lambda variables, key, images: model.apply(
                variables, normalize(images, mean, std), rngs={"nmf": key}
            )
        )

    def run(self, variables: Any, example_fn: ExampleFn | None = None) -> Metrics:
        """Return the metrics of ``{"params": ..., "batch_stats": ...}``.

        ``example_fn`` gets ``config.evaluation.num_overlays`` images.
        """
        options = self._config.evaluation
        # Only nmf_eval_bases="random" draws from it: one key for each batch.
        keys = map(
            functools.partial(jax.random.fold_in, jax.random.key(self._config.seed)),
            itertools.count(),
        )

        def logits_fn(images: jax.Array) -> jax.Array:
            return self._apply(variables, next(keys), images)

        batches = eval_batches(
            self._source,
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            batch_size=options.batch_size,
            scale=None if options.scale == (0, 0) else options.scale,
            multiple=options.size_multiple,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return evaluate(
            logits_fn,
            batches,
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            shard_fn=functools.partial(sharding.shard_batch, mesh=self._mesh),
            num_examples=options.num_overlays,
            example_fn=example_fn,
        )


def evaluate_workdir(config: ConfigDict, workdir: pathlib.Path) -> Metrics:
    """Restore the weights of a folder, evaluate them, log and write the table.

    Args:
      config: Of the run; fields that do not shape the network may differ.
      workdir: A run's folder, whose newest checkpoint is taken, or a model's folder, as
        python -m segnext_jax.convert writes it. ``evaluation.json`` is written there.

    Raises:
      ValueError: If it holds no weights, or those of another network.
    """
    config = workdir_lib.with_classes(config, workdir)
    workdir_lib.check_network(config, workdir)
    spec = resolve_spec(config.data)
    mesh = sharding.make_mesh()
    model = SegNeXt.from_config(config.model, spec.num_classes)
    validator = Validator(config, model, mesh)
    expected = checkpoint.abstract(abstract_variables(model), sharding.replicated(mesh))
    if checkpoint.is_model(workdir):
        step = None
        variables, _ = checkpoint.load_model(workdir, expected)
    else:
        checkpoints = checkpoint.Checkpoints(workdir)
        step = checkpoints.latest_step()
        variables = checkpoints.restore_model(expected)
        checkpoints.close()
    what = "the model" if step is None else f"step {step}"
    logging.info("Evaluating %s of %s on %d devices.", what, workdir, mesh.size)
    metrics = validator.run(variables)
    workdir_lib.write_results(metrics, step, spec.classes, workdir)
    return metrics
