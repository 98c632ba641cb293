"""Checkpoints: training states in a run's workdir.

A run's workdir:

    config.json                     the configuration it was started with
    checkpoints/<step>/model        parameters and batch statistics
    checkpoints/<step>/optimizer    step and moments
    checkpoints/<step>/iterator     the input pipeline's position
    checkpoints/<step>/about        version of the code, configuration
    checkpoints/<step>/checksums.json  size and CRC-32 of each of these files
    scores.json                     what evaluations gave, by step
    damaged/<step>                  checkpoints that were found damaged
    metrics.jsonl, tensorboard/, overlays/

The model lies apart from the optimizer, so that evaluation and prediction read no more
than they need, on any number of devices; see `segnext_jax.checkpoints.reading`.
"""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from segnext_jax.checkpoints import arrays, integrity, reading
from segnext_jax.checkpoints.best import SCORES_FILE, BestCheckpoints, KeepBest
from segnext_jax.checkpoints.bucket_run import BucketRun
from segnext_jax.cli.command import first_line
from segnext_jax.cli.storage import BucketError
from segnext_jax.cli.whole_files import reason, synchronise

_DAMAGED = "damaged"
# Orbax writes the time into this file after the seal; we read nothing from it.
_WRITTEN_AT_COMMIT = ("_CHECKPOINT_METADATA",)


class CheckpointError(OSError):
    """A checkpoint that could not be written."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        num_kept: int = 1,
        num_best: int = 0,
        bucket: BucketRun | None = None,
    ):
        """Open, and create when missing, the checkpoints of a workdir.

        Args:
          workdir: The run's folder.
          num_kept: Number of latest checkpoints that are kept.
          num_best: Number of checkpoints with the best scores that are kept as well.
          bucket: Where the workdir is brought, if anywhere. Process 0 alone writes
            then, because the others see another disk.
        """
        self._is_alone = bucket is not None and jax.process_count() > 1
        self._given: int | None = None
        self._workdir = pathlib.Path(workdir).absolute()
        self._folder = self._workdir / reading.CHECKPOINTS
        self._best = _best_checkpoints(self._workdir)
        self._num_kept, self._num_best = num_kept, num_best
        self._has_new_score = False
        self._saving: int | None = None
        latest = ocp.checkpoint_managers.LatestN(num_kept)
        best = KeepBest(self._best, num_best)
        self._manager = _Manager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                    [latest, best]
                ),
                # Removes folders that a killed run had half written.
                cleanup_tmp_directories=True,
                temporary_path_class=_sealed_path(bucket),
                **_options_of_one(self._folder) if self._is_alone else {},
            ),
            item_handlers={
                "model": arrays.array_handler(),
                "optimizer": arrays.array_handler(),
                "iterator": ocp.JsonCheckpointHandler(),
                "about": ocp.JsonCheckpointHandler(),
            },
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest checkpoint that was finished, or None."""
        return self._given or self._manager.latest_step()

    def has_score(self, step: int) -> bool:
        """Return whether the score of a checkpoint was recorded."""
        return self._best.has(step)

    def record_score(self, step: int, score: float) -> None:
        """Note how good a checkpoint is; higher is better.

        Args:
          step: The step of the checkpoint.
          score: The score of its evaluation; nan counts as the worst.
        """
        self._best.record(step, score)
        self._has_new_score = True

    def save(
        self,
        step: int,
        *,
        model: Any,
        optimizer: Any,
        iterator: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint; returns as soon as the arrays are copied.

        Args:
          step: Number of finished steps.
          model: Tree with parameters and batch statistics.
          optimizer: Tree with the rest of the training state.
          iterator: JSON values that place the input pipeline.
          about: JSON values that tell where the checkpoint comes from.

        Raises:
          CheckpointError: If this or the checkpoint before could not be written.
        """
        if step == self.latest_step():
            return
        self._finish_writing()
        self._saving = step
        if self._is_alone:
            model, optimizer = arrays.gathered((model, optimizer))
            self._given = step
            if jax.process_index() > 0:
                return
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.PyTreeSave(model),
                    optimizer=ocp.args.PyTreeSave(optimizer),
                    iterator=ocp.args.JsonSave(dict(iterator)),
                    about=ocp.args.JsonSave(dict(about or {})),
                ),
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def restore(self, *, model: Any, optimizer: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return (model, optimizer, iterator) of the newest whole checkpoint.

        Checkpoints after it, which are damaged, are moved to ``damaged/``, with a
        warning.

        Args:
          model: Tree of `jax.ShapeDtypeStruct` with shardings: what is expected, and
            where it shall lie.
          optimizer: The same for the rest of the state.

        Raises:
          ValueError: If there is no checkpoint, all checkpoints are damaged, or the
            arrays do not have the expected names and shapes.
        """
        args = ocp.args.Composite(
            model=arrays.request(model),
            optimizer=arrays.request(optimizer),
            iterator=ocp.args.JsonRestore(),
        )
        restored, passed_over = self._restore(args)
        if passed_over and (self._is_alone or jax.process_index() == 0):
            for step in passed_over:
                _move_away(self._folder / str(step), self._workdir / _DAMAGED)
        if passed_over:
            _meet("damaged checkpoints are moved")
            self._manager.reload()
        return restored["model"], restored["optimizer"], restored["iterator"]

    def _restore(self, args: ocp.args.Composite) -> tuple[Any, list[int]]:
        """Return what was restored, and the newer steps, which are damaged."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise ValueError(
                f"{self._workdir} must hold a finished checkpoint: none was found. "
                "Train first (segnext-jax train), or correct --workdir."
            )
        faults: dict[int, str] = {}
        for step in steps:
            has_checksums, fault = reading.fault_of(self._folder / str(step))
            if not fault:
                try:
                    restored = self._manager.restore(step, args=args)
                # Orbax raises a bare Exception where a file ends too early.
                except Exception as error:
                    fault = f"{first_line(error).rstrip('.')}."
                    if has_checksums:
                        raise self._unreadable(step, fault) from error
                else:
                    reading.warn_of_damage(faults, step)
                    return restored, list(faults)
            faults[step] = fault
        raise self._unreadable(steps[0], faults[steps[0]])

    def _unreadable(self, step: int, reason: str) -> ValueError:
        return ValueError(
            f"checkpoint {step} in {self._workdir} cannot be restored: {reason} "
            f"Delete {self._folder / str(step)} to go on from the one before, or begin "
            "a new run with another --workdir."
        )

    def wait(self) -> None:
        """Return when all checkpoints are on disk, with their checksums.

        If the run has new scores, this deletes checkpoints that are no longer among the
        best. Orbax decides when it saves a checkpoint, which is before the evaluation.

        Raises:
          CheckpointError: If a checkpoint could not be written.
        """
        self._finish_writing()
        if self._has_new_score:
            steps = sorted(self._manager.all_steps())
            best = self._best.steps(steps, self._num_best)
            kept = {*steps[-self._num_kept :], *best}
            for step in sorted({*steps} - kept):
                self._manager.delete(step)
            self._has_new_score = False

    def check(self) -> None:
        """Refuse to go on if a checkpoint could not be written; waits for nothing.

        Raises:
          CheckpointError: If a checkpoint could not be written.
        """
        if self._manager.failure is not None:
            raise self._unwritten(self._manager.failure) from self._manager.failure

    def _finish_writing(self) -> None:
        # With several processes orbax would wait, after a failure, for the others.
        while self._manager.is_saving_in_progress() and not self._manager.failure:
            time.sleep(0.01)
        self.check()
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        self._saving = None

    def close(self) -> None:
        """Finish writing and release threads.

        Raises:
          CheckpointError: If a checkpoint could not be written.
        """
        self.wait()
        self._manager.close()

    def _unwritten(self, error: Exception) -> CheckpointError:
        whole = [
            int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()
        ]
        before = [step for step in whole if step != self._saving]
        is_far = isinstance(error, BucketError)
        remedy = "start" if is_far else "make room, and start"
        rest = (
            f"The checkpoint of step {max(before)} is whole: {remedy} the run again to "
            "go on from there."
            if before
            else f"There is none before it: {remedy} the run again."
        )
        return CheckpointError(
            f"checkpoint {self._saving} in {self._workdir} could not be written: "
            f"{reason(error)}. {rest}"
        )


class _SealedPath(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """A checkpoint while it is written: it is sealed before it gets its name.

    So every checkpoint with its final name has checksums, whenever the run is killed,
    and its files are on the disk: a power loss leaves no empty files.
    """

    bucket: BucketRun | None = None

    async def finalize(self) -> None:
        """Seal and rename; orbax calls it where it has written everything else."""
        integrity.seal(pathlib.Path(self.get()), without=_WRITTEN_AT_COMMIT)
        await super().finalize()
        synchronise(pathlib.Path(self.get_final()).parent)
        # Orbax finishes each part of a checkpoint, too.
        if self.bucket is not None and self.get_final().name.isdecimal():
            # Older checkpoints stay until it is there: orbax deletes them afterwards.
            self.bucket.bring()


def _sealed_path(bucket: BucketRun | None) -> type[_SealedPath]:
    return type("_SealedPath", (_SealedPath,), {"bucket": bucket})


def _options_of_one(folder: pathlib.Path) -> dict[str, Any]:
    """Return what makes orbax write in this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    process = jax.process_index()
    one = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process_{process}",
    )
    return {"create": False, "multiprocessing_options": one}


class _Manager(ocp.CheckpointManager):
    """Tells at once that a save has failed; orbax tells when the next save begins.

    Attributes:
      failure: Why the save could not be finished.
    """

    failure: Exception | None = None

    def _wait_for_checkpointers(self) -> None:
        try:
            super()._wait_for_checkpointers()
        except Exception as error:
            self.failure = error
            raise


def _best_checkpoints(workdir: pathlib.Path) -> BestCheckpoints:
    """Return the scores of a run; of a damaged file none, with a warning."""
    path, is_writing = workdir / SCORES_FILE, jax.process_index() == 0
    try:
        return BestCheckpoints(path, is_writing=is_writing)
    except ValueError as error:
        logging.warning("%s The training goes on without them.", error)
        return BestCheckpoints(path, is_writing=is_writing, is_empty=True)


def _move_away(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Move a folder into another, beside what is there already."""
    target.mkdir(exist_ok=True)
    names = (folder.name, *(f"{folder.name}_{i}" for i in range(2, 1000)))
    free = next(name for name in names if not (target / name).exists())
    folder.rename(target / free)


def _meet(purpose: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(purpose)
