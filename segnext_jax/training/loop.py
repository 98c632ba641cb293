"""The training run: data, model, state, steps, evaluations, checkpoints."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from segnext_jax.checkpoints import arrays, bucket_run, reading, run_folder
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.cli import command, processes, storage
from segnext_jax.cli.progress import Progress
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.ops import sharding
from segnext_jax.pipeline.stream import BatchStream
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import schedule
from segnext_jax.training import state as state_lib
from segnext_jax.training.monitor.broken_steps import BrokenSteps
from segnext_jax.training.monitor.meter import Meter
from segnext_jax.training.monitor.metric_writer import MetricWriter
from segnext_jax.training.monitor.preemption import Preempted, Preemption
from segnext_jax.training.monitor.profiler import Profiler
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.run import Run
from segnext_jax.training.step import make_step
from segnext_jax.training.tasks.task import Metrics


def train(config: ConfigDict, workdir: pathlib.Path) -> Metrics | None:
    """Train as a configuration says; go on where the workdir's checkpoint stands.

    Args:
      config: See `segnext_jax.config`.
      workdir: The run's folder, made when missing, or its address in a bucket.

    Returns:
      The metrics of the final evaluation; None if SIGTERM ended the run before it, with
      a checkpoint of the last step.

    Raises:
      ValueError: If the workdir belongs to another configuration, another training
        writes into it, the devices cannot share a batch evenly, or the weights to start
        from do not exist.
      FloatingPointError: If the loss of more steps than allowed is not finite.
      CheckpointError: If a checkpoint cannot be written.
      FileNotFoundError: If the data set is not prepared, or the workdir is deleted
        while the run goes on.
    """
    with (
        bucket_run.opened(storage.as_path(workdir)) as (folder, bucket),
        Run.open(config, folder, bucket) as run,
    ):
        return _train(run)


def _train(run: Run) -> Metrics | None:
    config, workdir, loader, mesh = run.config, run.workdir, run.loader, run.mesh
    optimizer = Optimizer.from_config(config)
    create = functools.partial(
        state_lib.create,
        optimizer=optimizer,
        has_average=config.average_decay > 0,
    )
    shapes = jax.eval_shape(create, abstract_variables(run.task.model))
    placement = sharding.state_shardings(shapes, mesh, config.mesh.fsdp_min_size)
    checkpoints = Checkpoints(
        *(workdir, config.keep_checkpoints, config.keep_best, run.bucket)
    )
    state = _restore(checkpoints, loader, arrays.abstract(shapes, placement))
    if state is None:
        assert run.variables is not None  # A run without a checkpoint has them.
        state = jax.device_put(create(run.variables), placement)
    _log_start(run, state, optimizer)
    if loader.next_batch >= config.num_steps:
        logging.info(
            "%s is finished: step %d of %d. It is evaluated once more.",
            workdir,
            loader.next_batch,
            config.num_steps,
        )
    else:
        logging.info("Compiling the train step: the first step takes longer.")

    train_step = jax.jit(
        make_step(
            *(run.task.model, optimizer, run.task.prepare, config),
            sharding.replicated(mesh),
        ),
        in_shardings=(placement, sharding.batch_sharding(mesh)),
        out_shardings=(placement, sharding.replicated(mesh)),
        # To find the operation that made a nan, JAX does the step again.
        donate_argnums=() if config.debug else 0,
    )
    steps = _Steps(
        run=run,
        checkpoints=checkpoints,
        writer=MetricWriter(
            workdir,
            loader.next_batch,
            config.wandb_project,
            is_writing=jax.process_index() == 0,
        ),
        progress=Progress(config.num_steps, loader.next_batch),
        meter=Meter(config.batch_size, optimizer, config.data.stall_seconds),
        broken_steps=BrokenSteps(
            *(workdir, config.max_broken_steps, loader.next_batch, run.bucket)
        ),
        profiler=Profiler(workdir, config.profile_steps),
    )
    try:
        with Preemption() as preemption, jax.debug_nans(config.debug):
            metrics = steps.take(state, train_step, preemption)
    except BaseException as error:
        if config.debug and str(error).startswith("invalid value"):
            # Of JAX: its last line does not say where in the network.
            logging.exception("The first value that is not a number arises here:")
        processes.fail_soon(error)
        raise
    finally:
        steps.close()
    run.lock.check()
    if metrics is not None and jax.process_index() == 0:
        settings = run_folder.settings(config, reading.LATEST, run.differing)
        run.task.write_results(metrics, config.num_steps, workdir, settings=settings)
    return metrics


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The steps of a run, and what they need besides the state."""

    run: Run
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    meter: Meter
    broken_steps: BrokenSteps
    profiler: Profiler

    def take(
        self, state: state_lib.TrainState, train_step: Any, preemption: Preemption
    ) -> Metrics | None:
        """Do the remaining steps; return the metrics of the last evaluation."""
        config = self.run.config
        first_step = self.run.loader.next_batch
        metrics = None
        try:
            if self._misses_evaluation(first_step):
                metrics = self._evaluate(state, first_step, preemption)
            for step in range(first_step + 1, config.num_steps + 1):
                try:
                    with self.meter.waiting_for_data(step):
                        batch = next(self.run.loader)
                except ChildProcessError:
                    # SIGTERM may have ended the workers, too.
                    if not preemption.is_noticed:
                        raise
                    self._save(step - 1, state)
                    raise Preempted from None
                self.profiler.before(step)
                state, step_metrics = train_step(
                    state, sharding.shard_batch(batch, self.run.mesh)
                )
                self.meter.add(step, step_metrics)
                self.profiler.after(step, step_metrics)
                if step == first_step + 1:
                    jax.block_until_ready(step_metrics)
                    seconds = self.meter.elapsed()
                    logging.info(f"First step after {seconds:.0f} s.")
                    self.meter.start_clock()
                self.progress.advance()
                self.checkpoints.check()

                is_preempted = preemption.is_requested(step)
                is_last = step == config.num_steps
                is_evaluation = is_last or step % config.eval_every == 0
                is_checkpoint = step % config.checkpoint_every == 0
                is_checkpoint = is_checkpoint or is_evaluation or is_preempted
                if is_checkpoint or step % config.log_every == 0:
                    self._report(step, state)
                if is_checkpoint:
                    self._save(step, state)
                if is_preempted:
                    raise Preempted
                if is_evaluation:
                    metrics = self._evaluate(state, step, preemption)
            self.checkpoints.wait()
        except Preempted:
            self.checkpoints.wait()
            step = self.checkpoints.latest_step()
            logging.info(
                f"SIGTERM: ended with a checkpoint of step {step} of "
                f"{config.num_steps}. The same command goes on from there."
            )
            return None
        return metrics

    def _misses_evaluation(self, step: int) -> bool:
        """Return whether a run begins with an evaluation, also after a kill in one."""
        config = self.run.config
        if step == 0:
            return config.evaluation.at_start
        if step == config.num_steps:
            return True
        return step % config.eval_every == 0 and not self.checkpoints.has_score(step)

    def _report(self, step: int, state: state_lib.TrainState) -> None:
        self.run.lock.check()
        interval = self.meter.flush()
        self.writer.write(step, interval.values, "train")
        self.progress.report(step, _shown(interval.values))
        self.broken_steps.add(
            *(interval.broken_steps, step, state), self.run.loader.image_ids
        )

    def _save(self, step: int, state: state_lib.TrainState) -> None:
        model, rest = state.to_checkpoint()
        self.checkpoints.save(
            step,
            model=model,
            optimizer=rest,
            iterator=self.run.loader.state(),
            about=run_folder.about(self.run.config),
        )

    def _evaluate(
        self, state: state_lib.TrainState, step: int, preemption: Preemption
    ) -> Metrics:
        start = time.monotonic()
        variables = sharding.replicate(state.best_variables(), self.run.mesh)
        with preemption.interruptible():
            metrics = self.run.task.measure(variables, self.writer, step)
        if step:
            self.checkpoints.record_score(
                step, metrics.summary()[self.run.task.main_metric]
            )
        self.writer.write(step, self.run.task.logged(metrics), "val")
        means = "  ".join(f"{k} {100 * v:.2f}" for k, v in metrics.summary().items())
        seconds = time.monotonic() - start
        at_most = self.run.config.evaluation.max_images
        of = f" of at most {at_most} images" if at_most else ""
        logging.info(f"Evaluation at step {step}{of}: {means}  ({seconds:.0f} s)")
        overlays = self.writer.overlays_dir(step)
        if overlays.exists():
            logging.info(f"Overlays are in {overlays}.")
        self.meter.restart()
        return metrics

    def close(self) -> None:
        """Stop threads and processes, finish files."""
        for part in (
            *(self.run.loader, self.meter, self.profiler),
            *(self.checkpoints, self.writer, self.progress),
        ):
            part.close()


def _log_start(run: Run, state: state_lib.TrainState, optimizer: Optimizer) -> None:
    config, model = run.config, run.task.model
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    logging.info("Workdir: %s", run.workdir)
    logging.info(
        "%s %s, %d classes, %s parameters; %s on %s, batch %d.",
        type(model).__name__,
        config.model.variant,
        model.num_classes,
        f"{num_parameters:,}",
        config.data.name,
        command.counted(run.mesh.size, f"{jax.default_backend().upper()} device"),
        config.batch_size,
    )
    if config.optimizer.scale_learning_rate != "none":
        factor, reference = schedule.batch_size_factor(config)
        logging.info(
            "Learning rates times %.4g: batch %d instead of %d (%s).",
            *(factor, config.batch_size, reference),
            config.optimizer.scale_learning_rate,
        )
    for line in optimizer_lib.summarize(state.params, optimizer.rules):
        logging.info("Optimizer group %s.", line)


def _restore(
    checkpoints: Checkpoints,
    loader: BatchStream,
    expected: state_lib.TrainState,
) -> state_lib.TrainState | None:
    """Return the newest state and set the loader to its place; None: a new run."""
    if checkpoints.latest_step() is None:
        return None
    model, rest = expected.to_checkpoint()
    model, rest, iterator = checkpoints.restore(model=model, optimizer=rest)
    loader.restore(iterator)
    logging.info("Going on from the checkpoint of step %d.", loader.next_batch)
    return state_lib.TrainState.from_checkpoint(model, rest)


def _shown(values: dict[str, float]) -> dict[str, str]:
    return {
        "loss": f"{values['loss']:.4f}",
        "lr": f"{values['learning_rate']:.2e}",
        "images/s": f"{values['images_per_second']:.1f}",
        "data wait": f"{values['data_wait_share']:.0%}",
    }
