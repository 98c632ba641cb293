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
than they need, on any number of devices.
"""

import concurrent.futures
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from segnext_jax.checkpoints import arrays, integrity
from segnext_jax.checkpoints.best import BestCheckpoints, KeepBest
from segnext_jax.cli.command import first_line

_CHECKPOINTS = "checkpoints"
_DAMAGED = "damaged"
_SCORES = "scores.json"


class CheckpointError(OSError):
    """A checkpoint that could not be written."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self, workdir: str | pathlib.Path, num_kept: int = 1, num_best: int = 0
    ):
        """Open, and create when missing, the checkpoints of a workdir.

        Args:
          workdir: The run's folder.
          num_kept: Number of latest checkpoints that are kept.
          num_best: Number of checkpoints with the best scores that are kept as well.
        """
        self._workdir = pathlib.Path(workdir).absolute()
        self._folder = self._workdir / _CHECKPOINTS
        self._best = BestCheckpoints(
            self._workdir / _SCORES, is_writing=jax.process_index() == 0
        )
        self._saving: int | None = None
        self._sealer = concurrent.futures.ThreadPoolExecutor(1)
        latest = ocp.checkpoint_managers.LatestN(num_kept)
        best = KeepBest(self._best, num_best)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                    [latest, best]
                ),
                # What a killed run had half written.
                cleanup_tmp_directories=True,
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
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Return the step with the best score among the checkpoints, or None."""
        best = self._best.steps(self._manager.all_steps(), 1)
        return best[0] if best else None

    def has_score(self, step: int) -> bool:
        """Return whether the score of a checkpoint was recorded."""
        return self._best.has(step)

    def record_score(self, step: int, score: float) -> None:
        """Note how good a checkpoint is; higher is better.

        Args:
          step: Of the checkpoint.
          score: Of its evaluation; nan counts as the worst.
        """
        self._best.record(step, score)

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
        # Beside the training: the files are read once more.
        self._sealer.submit(self._write_checksums)
        self._saving = step
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
          ValueError: If there is no checkpoint, all are damaged, or the arrays are not
            the expected.
        """
        args = ocp.args.Composite(
            model=arrays.request(model),
            optimizer=arrays.request(optimizer),
            iterator=ocp.args.JsonRestore(),
        )
        restored, passed_over, _ = self._restore(args)
        if passed_over and jax.process_index() == 0:
            for step in passed_over:
                _move_away(self._folder / str(step), self._workdir / _DAMAGED)
        if passed_over:
            _meet("damaged checkpoints are moved")
            self._manager.reload()
        return restored["model"], restored["optimizer"], restored["iterator"]

    def restore_model(self, model: Any, *, is_best: bool = False) -> tuple[Any, int]:
        """Return the model alone, and its step; see `restore`.

        Args:
          model: What is expected, and where it shall lie.
          is_best: Whether to take the checkpoint with the best score; else the newest
            whole one.

        Raises:
          ValueError: Also if no checkpoint has a score.
        """
        args = ocp.args.Composite(model=arrays.request(model))
        wanted = None
        if is_best and self._manager.all_steps():
            wanted = self.best_step()
            if wanted is None:
                raise ValueError(
                    f"no checkpoint in {self._workdir} has been evaluated, so none is "
                    "the best. Take the latest one."
                )
        restored, _, step = self._restore(args, wanted)
        return restored["model"], step

    def _restore(
        self, args: ocp.args.Composite, wanted: int | None = None
    ) -> tuple[Any, list[int], int]:
        """Return what was restored, the newer steps that are damaged, and its step."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        if wanted is not None:
            steps = [step for step in steps if step == wanted]
        if not steps:
            raise ValueError(
                f"{self._workdir} must hold a finished checkpoint: none was found. "
                "Train first (--mode=train), or correct --workdir."
            )
        faults: list[str] = []
        for number, step in enumerate(steps):
            is_checked, fault = self._check(step)
            if not fault:
                try:
                    restored = self._manager.restore(step, args=args)
                # Orbax raises a bare Exception where a file ends too early.
                except Exception as error:
                    fault = first_line(error)
                    if is_checked:
                        raise self._unreadable(step, fault) from error
                else:
                    for earlier, reason in zip(steps, faults, strict=False):
                        logging.warning(
                            "Checkpoint %d is damaged (%s): passed over for that of "
                            "step %d.",
                            earlier,
                            reason,
                            step,
                        )
                    return restored, steps[:number], step
            faults.append(fault)
        raise self._unreadable(steps[0], faults[0])

    def _check(self, step: int) -> tuple[bool, str]:
        """Return whether a checkpoint has checksums, and what does not match them."""
        folder = self._folder / str(step)
        has_checksums = integrity.is_sealed(folder)
        # One process reads for all: the files may be large, and the answer must be one.
        is_whole = True
        fault = ""
        if has_checksums and jax.process_index() == 0:
            fault = integrity.differing_file(folder)
            is_whole = not fault
        if jax.process_count() > 1:
            is_whole = bool(multihost_utils.broadcast_one_to_all(np.int32(is_whole)))
        return has_checksums, "" if is_whole else fault or "see process 0"

    def _unreadable(self, step: int, reason: str) -> ValueError:
        return ValueError(
            f"checkpoint {step} in {self._workdir} cannot be restored: {reason} "
            f"Delete {self._folder / str(step)} to go on from the one before, or begin "
            "a new run with another --workdir."
        )

    def wait(self) -> None:
        """Return when all checkpoints are on disk, with their checksums.

        Raises:
          CheckpointError: If one could not be written.
        """
        self._finish_writing()
        self._sealer.submit(self._write_checksums).result()

    def _finish_writing(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        self._saving = None

    def close(self) -> None:
        """Finish writing and release threads."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._manager.close()

    def _unwritten(self, error: Exception) -> CheckpointError:
        whole = [
            int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()
        ]
        before = [step for step in whole if step != self._saving]
        rest = (
            f"The checkpoint of step {max(before)} is whole: make room, and start the "
            "run again to go on from there."
            if before
            else "There is none before it: make room, and start the run again."
        )
        return CheckpointError(
            f"checkpoint {self._saving} in {self._workdir} could not be written: "
            f"{first_line(error)} {rest}"
        )

    def _write_checksums(self) -> None:
        """Seal the checkpoints that are finished."""
        if jax.process_index() != 0:
            return
        for folder in self._folder.iterdir():
            if not folder.name.isdecimal() or integrity.is_sealed(folder):
                continue
            try:
                integrity.seal(folder)
            except FileNotFoundError:
                # Newer ones take its place: it is being deleted.
                continue


def _move_away(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Move a folder into another, beside what is there already."""
    target.mkdir(exist_ok=True)
    names = (folder.name, *(f"{folder.name}_{i}" for i in range(2, 1000)))
    free = next(name for name in names if not (target / name).exists())
    folder.rename(target / free)


def _meet(purpose: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(purpose)
