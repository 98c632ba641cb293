"""Evaluate a network on the validation split of its data set."""

import functools
import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import sharding
from segnext_jax.checkpoints import arrays, model_folder, run_folder
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.cli.progress import Progress
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation import report
from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.evaluation.evaluator import ExampleFn, measure_segmentation
from segnext_jax.evaluation.inference import Inference
from segnext_jax.evaluation.metrics import Metrics, spread
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline.evaluation_batches import EvaluationBatches
from segnext_jax.pipeline.fitting import Fitting
from segnext_jax.pipeline.sources import open_split

_SECONDS_BETWEEN_REPORTS = 10


class Validator:
    """The validation split and how a network is applied to it."""

    def __init__(self, config: ConfigDict, model: SegNeXt, mesh: jax.sharding.Mesh):
        """Open the split.

        Raises:
          ValueError: If the devices cannot share the evaluation's batch evenly.
          FileNotFoundError: If the data set is not prepared.
        """
        options = config.evaluation
        sharding.check_batch_size(options.batch_size, mesh, "evaluation.batch_size")
        self._config = config
        self._model = model
        self._mesh = mesh
        self._spec = resolve_spec(config.data)
        self._batches = EvaluationBatches(
            open_split(config.data, self._spec, self._spec.val_split),
            Fitting.from_config(options),
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            batch_size=options.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self._has_logged_plan = False

        def apply(variables: Any, draw: Any, call: Any, images: jax.Array) -> Any:
            # Used where there is no draw: one key for each call.
            key = jax.random.fold_in(jax.random.key(config.seed), call)
            rngs = model.inference_rngs(key)
            return model.apply(variables, images, draw, rngs=rngs)

        self._apply = jax.jit(apply)

    def run(
        self,
        variables: Any,
        example_fn: ExampleFn | None = None,
        draw: Any = None,
    ) -> Metrics:
        """Return the metrics of ``{"params": ..., "batch_stats": ...}``.

        Args:
          variables: The weights.
          example_fn: Gets ``config.evaluation.num_overlays`` images.
          draw: One of `SegNeXt.draws`. None: the first.
        """
        options = self._config.evaluation
        if draw is None:
            (draw,) = self._model.draws().values()
        # An argument of the program: another draw is not another program.
        draw = sharding.replicate(jax.device_get(draw), self._mesh)
        calls = itertools.count()

        def logits_fn(images: jax.Array) -> jax.Array:
            return self._apply(variables, draw, np.uint32(next(calls)), images)

        self._log_plan()
        return measure_segmentation(
            Inference.from_config(
                self._config,
                logits_fn,
                functools.partial(sharding.shard_batch, mesh=self._mesh),
            ),
            self._with_progress(),
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            boundary_ratio=options.boundary_ratio if options.boundary_iou else None,
            num_examples=options.num_overlays,
            example_fn=example_fn,
        )

    def run_draws(self, variables: Any) -> tuple[Metrics, dict[str, Any]]:
        """Return the metrics of the first draw, and the spread over all of them.

        Args:
          variables: The weights.
        """
        draws = self._model.draws(self._config.evaluation.num_bases)
        runs = []
        for seed, draw in draws.items():
            runs.append(self.run(variables, draw=draw))
            if len(draws) > 1:
                logging.info(
                    "Draw of seed %d: %s", seed, report.format_summary(runs[-1])
                )
        if len(draws) == 1:
            return runs[0], {}
        over_draws = spread(runs)
        for name, values in over_draws.items():
            percents = "  ".join(f"{k} {100 * v:.3f}" for k, v in values.items())
            logging.info("%s over %d draws: %s", name, len(draws), percents)
        return runs[0], {"over_bases": {"seeds": list(draws), **over_draws}}

    def _log_plan(self) -> None:
        """Say how many programs there will be, once: each takes time to compile.

        The network is compiled once for each size that it sees, and for each
        combination of sizes (one for each ratio) the resampling of its logits once for
        each power of two of `segnext_jax.evaluation.resampling.cut`, mostly one.
        """
        if self._has_logged_plan:
            return
        self._has_logged_plan = True
        options = self._config.evaluation
        sizes = self._batches.input_sizes
        if options.mode == "slide":
            height, width = options.window
            sizes = sorted({(min(h, height), min(w, width)) for h, w in sizes})
        logging.info(
            "Evaluation: %d images in %d batches. The network is compiled once for "
            "each of %d input sizes: %s.",
            self._batches.num_examples,
            len(self._batches),
            len(sizes),
            ", ".join(f"{height}x{width}" for height, width in sizes),
        )

    def _with_progress(self) -> Iterator[LabelledBatch]:
        progress = Progress(len(self._batches), description="evaluate")
        last = start = time.monotonic()
        try:
            for number, batch in enumerate(self._batches):
                yield batch  # The next one is asked for when this one is done.
                progress.advance()
                now = time.monotonic()
                if now - last > _SECONDS_BETWEEN_REPORTS:
                    last = now
                    done = (number + 1) * self._config.evaluation.batch_size
                    images = min(done, self._batches.num_examples)
                    pace = {"images/s": f"{images / (now - start):.2f}"}
                    progress.report(number + 1, pace)
        finally:
            progress.close()


def restore_variables(
    config: ConfigDict,
    model: nn.Module,
    workdir: pathlib.Path,
    mesh: jax.sharding.Mesh,
) -> tuple[Any, int | None]:
    """Return the weights of a folder, whole on each device, and their step.

    The step is None if it is a model's folder and not a run's, of which the checkpoint
    is taken that ``config.evaluation.checkpoint`` names.

    Raises:
      ValueError: If it holds no weights, or those of another network.
    """
    expected = arrays.abstract(abstract_variables(model), sharding.replicated(mesh))
    if model_folder.is_model(workdir):
        step = None
        variables, _ = model_folder.load_model(workdir, expected)
    else:
        checkpoints = Checkpoints(workdir)
        variables, step = checkpoints.restore_model(
            expected, is_best=config.evaluation.checkpoint == "best"
        )
        checkpoints.close()
    what = "the model" if step is None else f"step {step}"
    logging.info("Evaluating %s of %s on %d devices.", what, workdir, mesh.size)
    return variables, step


def evaluate_workdir(config: ConfigDict, workdir: pathlib.Path) -> Metrics:
    """Restore the weights of a folder, evaluate them, log and write the table.

    Args:
      config: Of the run; fields that do not shape the network may differ.
      workdir: A run's folder, whose newest checkpoint is taken, or a model's folder, as
        python -m segnext_jax.convert writes it. The results are written there; with
        several draws the table is that of the first.

    Raises:
      ValueError: If it holds no weights, or those of another network.
    """
    config = run_folder.with_classes(config, workdir)
    run_folder.check_network(config, workdir)
    spec = resolve_spec(config.data)
    mesh = sharding.make_mesh()
    model = SegNeXt.from_config(config.model, spec.num_classes)
    validator = Validator(config, model, mesh)
    variables, step = restore_variables(config, model, workdir, mesh)
    metrics, more = validator.run_draws(variables)
    if jax.process_index() == 0:  # All have the same numbers, and may share a disk.
        report.write_results(metrics, step, spec.classes, workdir, **more)
    return metrics
