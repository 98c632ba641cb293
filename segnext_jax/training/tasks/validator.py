"""Evaluate a network on the validation split of its data set."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from segnext_jax.cli import command
from segnext_jax.cli.progress import followed
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation import report
from segnext_jax.evaluation.evaluator import ExampleFn, evenly, measure_segmentation
from segnext_jax.evaluation.inference import Inference
from segnext_jax.evaluation.metrics import Metrics, spread
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import sharding
from segnext_jax.pipeline.evaluation_batches import EvaluationBatches
from segnext_jax.pipeline.fitting import Fitting
from segnext_jax.pipeline.sources import open_split


# Of the module: another evaluation of the same network compiles nothing.
@functools.partial(jax.jit, static_argnames="model")
def _apply(
    variables: Any, draw: Any, seed: Any, call: Any, images: jax.Array, model: SegNeXt
) -> Any:
    # The key is used where there is no draw.
    key = jax.random.fold_in(jax.random.key(seed), call)
    rngs = model.inference_rngs(key)
    return model.apply(variables, images, draw, rngs=rngs)


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
        split = open_split(config.data, self._spec, self._spec.val_split)
        self._num_in_split = len(split)
        self._batches = EvaluationBatches(
            split,
            Fitting.from_config(options),
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            batch_size=options.batch_size,
            max_examples=options.max_images or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self._has_logged_plan = False

    @property
    def images(self) -> str:
        """How many images are evaluated, for people."""
        num, total = self._batches.num_examples, self._num_in_split
        part = f"{num:,} of " if num < total else ""
        return part + command.counted(total, "image")

    def run(
        self,
        variables: Any,
        example_fn: ExampleFn | None = None,
        draw: Any = None,
        is_every: bool = False,
    ) -> Metrics:
        """Return the metrics of ``{"params": ..., "batch_stats": ...}``.

        Args:
          variables: The weights.
          example_fn: Gets ``config.evaluation.num_overlays`` images of the whole split.
          is_every: Whether it gets all images instead.
          draw: One of `SegNeXt.draws`. None: the first.
        """
        options = self._config.evaluation
        if draw is None:
            (draw,) = self._model.draws().values()
        # An argument of the program: another draw is not another program.
        draw = sharding.replicate(jax.device_get(draw), self._mesh)
        calls = itertools.count()

        def logits_fn(images: jax.Array) -> jax.Array:
            seed, call = np.uint32(self._config.seed), np.uint32(next(calls))
            return _apply(variables, draw, seed, call, images, model=self._model)

        self._log_plan()
        num_overlays = options.num_overlays
        num_images = -(-self._batches.num_examples // jax.process_count())
        return measure_segmentation(
            Inference.from_config(
                self._config,
                logits_fn,
                functools.partial(sharding.shard_batch, mesh=self._mesh),
            ),
            followed(
                self._batches,
                len(self._batches),
                "evaluate",
                self._config.evaluation.batch_size,
            ),
            num_classes=self._spec.num_classes,
            ignore_label=self._spec.ignore_label,
            boundary_ratio=options.boundary_ratio if options.boundary_iou else None,
            examples=evenly(num_images if is_every else num_overlays, num_images),
            example_fn=example_fn,
        )

    def run_draws(
        self, variables: Any, example_fn: ExampleFn | None = None
    ) -> tuple[Metrics, dict[str, Any]]:
        """Return the metrics of the first draw, and the spread over all of them.

        Args:
          variables: The weights.
          example_fn: Gets every image with the prediction of the first draw.
        """
        draws = self._model.draws(self._config.evaluation.num_bases)
        runs = []
        for seed, draw in draws.items():
            runs.append(self.run(variables, example_fn, draw, is_every=True))
            example_fn = None
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
            "Evaluation: %s in %s. The network is compiled for %s: %s.",
            self.images,
            command.counted(len(self._batches), "batch"),
            command.counted(len(sizes), "input size"),
            ", ".join(f"{height}x{width}" for height, width in sizes),
        )
