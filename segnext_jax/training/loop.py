"""The training run: data, model, state, steps, evaluations, checkpoints."""

import functools
import pathlib
import time
from typing import Any

import cv2
import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import checkpoint, convert, sharding, visualize
from segnext_jax.datasets import DatasetSpec
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.metrics import Metrics
from segnext_jax.metric_writer import MetricWriter
from segnext_jax.models.initialization import abstract_variables, initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.pipeline.sources import open_split
from segnext_jax.progress import Progress
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import recipe
from segnext_jax.training import state as state_lib
from segnext_jax.training import workdir as workdir_lib
from segnext_jax.training.schedule import Schedule
from segnext_jax.training.validator import Validator


def train(config: ConfigDict, workdir: pathlib.Path) -> Metrics:
    """Train as a configuration says; go on where the workdir's checkpoint stands.

    Args:
      config: See `segnext_jax.config`.
      workdir: The run's folder, made when missing.

    Returns:
      The metrics of the final evaluation.

    Raises:
      ValueError: If the workdir belongs to another configuration, the devices cannot
        share a batch evenly, or the weights to start from do not exist.
      FileNotFoundError: If the data set is not prepared.
      FloatingPointError: If a loss is not finite.
    """
    # What a user can get wrong comes first, before any device is asked to compute.
    config = workdir_lib.with_classes(config, workdir)
    spec = resolve_spec(config.data)
    _check_start(config, workdir)
    mesh = sharding.make_mesh(config.mesh.fsdp)
    sharding.check_batch_size(
        config.batch_size, mesh, "batch_size", config.accumulate_steps
    )
    loader = make_loader(config, spec)
    model = SegNeXt.from_config(config.model, spec.num_classes)
    validator = Validator(config, model, mesh)
    workdir_lib.claim(config, workdir)

    schedule = recipe.make_schedule(config)
    optimizer = recipe.make_optimizer(config, schedule)
    create = functools.partial(
        state_lib.create,
        optimizer=optimizer,
        rules=recipe.make_rules(config),
        has_average=config.average_decay > 0,
    )
    shapes = jax.eval_shape(create, abstract_variables(model))
    placement = sharding.state_shardings(shapes, mesh, config.mesh.fsdp_min_size)
    checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints)
    state = _restore(checkpoints, loader, checkpoint.abstract(shapes, placement))
    if state is None:
        variables = initial_variables(config, model)
        state = jax.device_put(create(variables), placement)
    _log_start(config, workdir, model, state, mesh)

    train_step = jax.jit(
        recipe.make_step(
            config, model, optimizer, spec.ignore_label, sharding.replicated(mesh)
        ),
        in_shardings=(placement, sharding.batch_sharding(mesh)),
        out_shardings=(placement, sharding.replicated(mesh)),
        donate_argnums=0,
    )

    def in_use(state: state_lib.TrainState) -> Any:
        return sharding.replicate(state.best_variables(), mesh)

    first_step = loader.next_batch
    writer = MetricWriter(workdir, first_step)
    progress = Progress(config.num_steps, first_step)
    meter = _Meter(config.batch_size, schedule)
    metrics = None
    try:
        if first_step == 0 and config.evaluation.at_start:
            _evaluate(validator, in_use(state), spec, writer, progress, step=0)
            meter.restart()
        for step in range(first_step + 1, config.num_steps + 1):
            with meter.waiting_for_data():
                batch = next(loader)
            state, step_metrics = train_step(state, sharding.shard_batch(batch, mesh))
            meter.add(step, step_metrics)
            if step == first_step + 1:
                jax.block_until_ready(step_metrics)
                progress.note(f"First step after {meter.elapsed():.0f} s.")
                meter.start_clock()
            progress.advance()

            is_last = step == config.num_steps
            is_evaluation = is_last or step % config.eval_every == 0
            is_checkpoint = is_evaluation or step % config.checkpoint_every == 0
            if is_checkpoint or step % config.log_every == 0:
                values = meter.flush()
                writer.write(step, values)
                progress.report(step, _shown(values))
            if is_checkpoint:
                _save(checkpoints, step, state, loader)
            if is_evaluation:
                metrics = _evaluate(
                    validator, in_use(state), spec, writer, progress, step
                )
                meter.restart()
        checkpoints.wait()
    finally:
        loader.close()
        checkpoints.close()
        writer.close()
        progress.close()
    if metrics is None:
        logging.info("%s is finished: step %d of %d.", workdir, first_step, first_step)
        metrics = validator.run(in_use(state))
    workdir_lib.write_results(metrics, config.num_steps, spec.classes, workdir)
    return metrics


def make_loader(config: ConfigDict, spec: DatasetSpec) -> TrainLoader:
    """Return the batches of this process."""
    data = config.data
    return TrainLoader(
        open_split(data, spec, data.train_split or spec.train_split),
        num_classes=spec.num_classes,
        ignore_label=spec.ignore_label,
        batch_size=config.batch_size,
        crop_size=data.crop_size,
        base_scale=data.base_scale,
        scale_range=data.scale_range,
        max_class_share=data.max_class_share,
        flip_probability=data.flip_probability,
        rotation_probability=data.rotation_probability,
        max_rotation=data.max_rotation,
        rare_class_temperature=data.rare_class_temperature,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=data.num_workers,
        num_threads=data.num_threads,
        prefetch=data.prefetch_batches,
    )


def _check_start(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse a new run whose starting weights are missing, before it has a workdir."""
    start = config.init_from
    if start and not pathlib.Path(start).exists() and not workdir.exists():
        raise ValueError(
            "config.init_from must be an existing file or folder of weights: "
            f"{pathlib.Path(start).absolute()} does not exist. Run first what leaves "
            "it there (see the config's docstring), or correct the path."
        )


def initial_variables(config: ConfigDict, model: SegNeXt) -> dict[str, Any]:
    """Return random weights, or those of ``config.init_from`` as far as they fit.

    Raises:
      ValueError: If nothing fits, or the encoder does not; see
        `segnext_jax.convert.merge`.
    """
    variables = initialize(model, config.seed)
    if not config.init_from:
        logging.info("config.init_from is empty: starting from random weights.")
        return variables
    variables, summary = convert.merge(variables, convert.from_path(config.init_from))
    logging.info("Starting from %s: %s", config.init_from, summary)
    return variables


def _log_start(
    config: ConfigDict,
    workdir: pathlib.Path,
    model: SegNeXt,
    state: state_lib.TrainState,
    mesh: Any,
) -> None:
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    logging.info("Workdir: %s", workdir)
    logging.info(
        "SegNeXt %s, %d classes, %s parameters; %s on %d %s devices, batch %d.",
        config.model.variant,
        model.num_classes,
        f"{num_parameters:,}",
        config.data.name,
        mesh.size,
        jax.default_backend(),
        config.batch_size,
    )
    for line in optimizer_lib.summarize(state.params, recipe.make_rules(config)):
        logging.info("Optimizer group %s.", line)
    logging.info("Compiling the train step: the first step takes longer.")


def _restore(
    checkpoints: checkpoint.Checkpoints,
    loader: TrainLoader,
    expected: state_lib.TrainState,
) -> state_lib.TrainState | None:
    """Return the newest state and set the loader to its place; None: a new run."""
    step = checkpoints.latest_step()
    if step is None:
        return None
    model, rest = expected.to_checkpoint()
    model, rest, iterator = checkpoints.restore(model=model, optimizer=rest)
    loader.restore(iterator)
    logging.info("Going on from the checkpoint of step %d.", step)
    return state_lib.TrainState.from_checkpoint(model, rest)


def _save(
    checkpoints: checkpoint.Checkpoints,
    step: int,
    state: state_lib.TrainState,
    loader: TrainLoader,
) -> None:
    model, rest = state.to_checkpoint()
    checkpoints.save(step, model=model, optimizer=rest, iterator=loader.state())


def _evaluate(
    validator: Validator,
    variables: Any,
    spec: DatasetSpec,
    writer: MetricWriter,
    progress: Progress,
    step: int,
) -> Metrics:
    paths = []

    def draw(name: str, image: Any, label: Any, prediction: Any) -> None:
        height, width = label.shape
        image = cv2.resize(image, (width, height))  # From the network's input size.
        picture = visualize.side_by_side(image, label, prediction, spec)
        paths.append(writer.write_overlay(step, name, picture))

    start = time.monotonic()
    metrics = validator.run(variables, draw)
    writer.write(step, metrics.summary())
    means = "  ".join(f"{k} {100 * v:.2f}" for k, v in metrics.summary().items())
    seconds = time.monotonic() - start
    progress.note(f"Evaluation at step {step}: {means}  ({seconds:.0f} s)")
    if paths:
        progress.note(f"Overlays are in {paths[0].parent}.")
    return metrics


def _shown(values: dict[str, float]) -> dict[str, str]:
    return {
        "loss": f"{values['loss']:.4f}",
        "lr": f"{values['learning_rate']:.2e}",
        "images/s": f"{values['images_per_second']:.1f}",
        "data wait": f"{values['data_wait_share']:.0%}",
    }


class _Meter:
    """Collects the steps' metrics on the device and fetches them together."""

    def __init__(self, batch_size: int, schedule: Schedule):
        self._batch_size = batch_size
        self._schedule = schedule
        self.restart()

    def restart(self) -> None:
        """Begin a new interval now."""
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Time from now on; what is pending stays, but is not timed."""
        self._num_untimed = len(self._pending)
        self._wait = 0.0
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the clock was started."""
        return time.monotonic() - self._start

    def waiting_for_data(self) -> "_Wait":
        return _Wait(self)

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._pending.append((step, metrics))

    def flush(self) -> dict[str, float]:
        """Return the means of the interval and begin a new one.

        Raises:
          FloatingPointError: If the loss or gradient of a step is not finite.
        """
        steps = [step for step, _ in self._pending]
        fetched = jax.device_get([metrics for _, metrics in self._pending])
        elapsed = self.elapsed()
        num_timed = len(steps) - self._num_untimed
        values = {
            name: np.array([metrics[name] for metrics in fetched])
            for name in fetched[0]
        }
        is_broken = ~np.isfinite(values["loss"]) | ~np.isfinite(values["gradient_norm"])
        if is_broken.any():
            broken = [step for step, bad in zip(steps, is_broken, strict=True) if bad]
            raise FloatingPointError(
                f"loss and gradient must be finite: they were not at step {broken[0]} "
                f"and {len(broken) - 1} later ones. The checkpoints before it are "
                "whole; lower config.optimizer.learning_rate or look at the data."
            )
        result = {name: float(np.mean(array)) for name, array in values.items()}
        # The schedule counts finished steps.
        result["learning_rate"] = float(self._schedule(steps[-1] - 1))
        result["images_per_second"] = self._batch_size * num_timed / elapsed
        result["data_wait_share"] = self._wait / elapsed
        self.restart()
        return result


class _Wait:
    """Adds the time in its block to the meter's wait."""

    def __init__(self, meter: _Meter):
        self._meter = meter

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._meter._wait += time.monotonic() - self._start
