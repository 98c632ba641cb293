"""Read the weights of a run, of one of its checkpoints, or of a model folder.

Reading changes nothing in a folder. Checksums are compared first. Where there are no
checksums (earlier versions, a run that was killed while it wrote), damage is found only
if a file cannot be decoded.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import arrays, integrity, json_files
from segnext_jax.checkpoints.best import SCORES_FILE, BestCheckpoints
from segnext_jax.checkpoints.model_folder import CONFIG_FILE, MODEL, is_model
from segnext_jax.cli import storage
from segnext_jax.cli.command import first_line

CHECKPOINTS = "checkpoints"
# Parts of a checkpoint that a training alone reads.
_OF_TRAINING = ("optimizer", "iterator")
ABOUT = pathlib.Path("about", "metadata")
LATEST, BEST = "latest", "best"
# Name of the score by which a checkpoint is the best.
SCORE_NAMES = {"segmentation": "mIoU", "classification": "top1"}


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """Weights that were read, and what they are.

    Attributes:
      variables: ``{"params": ..., "batch_stats": ...}`` of NumPy arrays.
      config: The configuration beside the weights; None for a file without one.
      path: The folder or file.
      step: Number of steps that they were trained; None if that is not stored.
      score: mIoU or top-1 of the step, 0..1; None if it was not evaluated.
      is_newest: Whether the run has no later checkpoint.
    """

    variables: dict[str, Any]
    config: ConfigDict | None
    path: pathlib.Path
    step: int | None = None
    score: float | None = None
    is_newest: bool = True

    def __str__(self) -> str:
        """Say where they come from, in one line."""
        parts = [str(self.path)]
        if self.step is not None:
            parts.append(f"step {self.step}")
        if self.score is not None and self.config is not None:
            parts.append(f"{SCORE_NAMES[str(self.config.task)]} {100 * self.score:.2f}")
        elif self.step is not None:
            parts.append("not evaluated")
        return ", ".join(parts)


def parse_which(which: str | int) -> str | int:
    """Return ``"latest"``, ``"best"`` or the number of a step.

    Raises:
      ValueError: If ``which`` is none of these.
    """
    text = str(which)
    if text in (LATEST, BEST):
        return text
    if text.isascii() and text.isdecimal() and not isinstance(which, bool):
        return int(text)
    raise ValueError(
        f"which checkpoint to take must be latest, best or the number of a step: got "
        f"{which!r}."
    )


def read(path: str | pathlib.Path, which: str | int = LATEST) -> StoredModel:
    """Return the weights of a folder, with their configuration.

    Args:
      path: A run's workdir, its ``checkpoints`` or ``checkpoints/STEP``, or a model
        folder.
      which: The checkpoint of a run. ``"latest"``: the newest whole one, with a warning
        for each damaged one after it; ``"best"``: the one with the best score; or a
        step.

    Raises:
      ValueError: If there is no such checkpoint, the checkpoint is damaged, the folder
        holds something else, or the configuration in it cannot be used.
    """
    which = parse_which(which)
    path = storage.as_path(path).absolute()
    run, step = run_of(path)
    if step is not None:
        if which not in (LATEST, step):
            raise ValueError(
                f"{path} is one checkpoint, of step {step}: got {which} as the one to "
                f"take. Name the run's folder, {run}, or leave it out."
            )
        return _of_run(run, {step: path}, step)
    folders = checkpoint_folders(run)
    if folders:
        return _of_run(run, folders, which)
    if is_model(run):
        if which != LATEST:
            raise ValueError(
                f"{path} holds one model, not the checkpoints of a run: got {which} as "
                "the one to take. Leave it out."
            )
        return _of_model_folder(run)
    if (run / CONFIG_FILE).is_file() or (run / CHECKPOINTS).is_dir():
        raise ValueError(
            f"{run} must hold a finished checkpoint: none was found. Train first "
            "(segnext-jax train), or name another run."
        )
    raise ValueError(
        f"{path} must be a run's workdir, one of its checkpoints, or a model folder "
        f"with {CONFIG_FILE} and {MODEL}/, as segnext-jax convert writes it: "
        "it is none of these."
    )


def checkpoint_folders(run: pathlib.Path) -> dict[int, pathlib.Path]:
    """Return the finished checkpoints of a run by step, the newest first.

    Orbax writes under another name and renames at the end; in a bucket the seal comes
    at the end.
    """
    is_whole = integrity.is_sealed if storage.is_bucket(run) else pathlib.Path.is_dir
    found = {
        int(path.name): path
        for path in (run / CHECKPOINTS).glob("*")
        if path.name.isdecimal() and is_whole(path)
    }
    return dict(sorted(found.items(), reverse=True))


def stored_config(run: pathlib.Path) -> ConfigDict:
    """Return the configuration of a run or model folder.

    Where its file is damaged, that of the newest checkpoint is taken, with a warning.

    Raises:
      ValueError: If the configuration is missing or cannot be used.
    """
    path = run / CONFIG_FILE
    if not path.is_file():
        raise ValueError(
            f"{run} must be the folder of a run or of a model: {path} does not exist. "
            "Train first (segnext-jax train), or name another folder."
        )
    try:
        return config_lib.from_json(path.read_bytes().decode())
    except ValueError as error:
        for step, folder in checkpoint_folders(run).items():
            if json_files.is_damaged(path) and not json_files.is_damaged(
                folder / ABOUT
            ):
                logging.warning(
                    "%s is damaged: the configuration of checkpoint %d is taken.",
                    *(path, step),
                )
                return _config_of_checkpoint(folder)
        raise ValueError(f"{path} cannot be used: {error}") from error


def fault_of(folder: pathlib.Path, without: Collection[str] = ()) -> tuple[bool, str]:
    """Return whether a folder has checksums, and what does not match them.

    One process reads for all: the files may be large, and the answer must be one.

    Args:
      folder: The folder.
      without: See `integrity.differing_file`.
    """
    has_checksums = integrity.is_sealed(folder)
    fault = ""
    if has_checksums and jax.process_index() == 0:
        fault = integrity.differing_file(folder, without)
    if jax.process_count() == 1:
        return has_checksums, fault
    is_whole = multihost_utils.broadcast_one_to_all(np.int32(not fault))
    return has_checksums, "" if is_whole else fault or "see process 0"


def warn_of_damage(faults: dict[int, str], step: int) -> None:
    """Say which checkpoints were passed over for that of ``step``, and why."""
    for damaged, reason in faults.items():
        logging.warning(
            "Checkpoint %d is damaged (%s): passed over for that of step %d.",
            damaged,
            reason,
            step,
        )


def run_of(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """Return the run that a path belongs to, and the step if it is a checkpoint."""
    if path.name == CHECKPOINTS and not (path / CONFIG_FILE).is_file():
        return path.parent, None
    is_checkpoint = path.name.isdecimal() and (path / MODEL).is_dir()
    if is_checkpoint and not (path / CONFIG_FILE).is_file():
        is_of_run = path.parent.name == CHECKPOINTS
        return path.parent.parent if is_of_run else path, int(path.name)
    return path, None


def _of_run(
    run: pathlib.Path, folders: dict[int, pathlib.Path], which: str | int
) -> StoredModel:
    scores = _scores(run, is_needed=which == BEST)
    wanted = list(folders)
    if which == BEST:
        wanted = scores.steps(list(folders), 1)
        if not wanted:
            raise ValueError(
                f"no checkpoint in {run} has been evaluated, so none is the best. Take "
                "the latest one."
            )
    elif which != LATEST:
        wanted = [step for step in wanted if step == which]
        if not wanted:
            kept = ", ".join(map(str, sorted(folders)))
            raise ValueError(
                f"{run} has no checkpoint of step {which}: it keeps those of {kept}."
            )
    faults: dict[int, str] = {}
    for step in wanted:
        variables, faults[step] = _arrays(folders[step])
        if variables is not None:
            del faults[step]
            warn_of_damage(faults, step)
            return StoredModel(
                variables,
                _config(run, folders[step]),
                run,
                step,
                scores.of(step),
                is_newest=step == next(iter(checkpoint_folders(run)), step),
            )
        if jax.process_count() == 1 and not folders[step].exists():
            # The checkpoint is not damaged: a training that runs at the same time has
            # replaced it by a newer one.
            return read(run, which)
    step, reason = next(iter(faults.items()))
    every = "every checkpoint is, the newest" if len(faults) > 1 else "it is"
    raise ValueError(
        f"checkpoint {step} in {run} cannot be read: {every} damaged ({reason}). "
        "Take another checkpoint or a copy of this one."
    )


def _of_model_folder(folder: pathlib.Path) -> StoredModel:
    variables, fault = _arrays(folder)
    if variables is None:
        raise ValueError(
            f"the model in {folder} is damaged: {fault.rstrip('.')}. Convert it again, "
            f"or copy it again; if you have edited {CONFIG_FILE} on purpose, delete "
            f"{integrity.CHECKSUMS_FILE}."
        )
    return StoredModel(variables, stored_config(folder), folder)


def _arrays(folder: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """Return the arrays of a checkpoint or model folder, or None and the damage."""
    if storage.is_bucket(folder):
        try:
            with storage.local(folder, _OF_TRAINING) as copy:
                return _arrays_of(copy, _OF_TRAINING)
        except FileNotFoundError as error:  # A training has just removed it.
            return None, first_line(error)
    return _arrays_of(folder)


def _arrays_of(
    folder: pathlib.Path, without: Collection[str] = ()
) -> tuple[dict[str, Any] | None, str]:
    _, fault = fault_of(folder, without)
    if fault:
        return None, fault
    try:
        return arrays.read(folder / MODEL), ""
    # Orbax raises a bare Exception where a file ends too early, and many other types.
    except Exception as error:
        return None, f"{MODEL} cannot be decoded: {first_line(error).rstrip('.')}"


def _scores(run: pathlib.Path, *, is_needed: bool) -> BestCheckpoints:
    try:
        return BestCheckpoints(run / SCORES_FILE, is_writing=False)
    except ValueError as error:
        if is_needed:
            raise
        logging.warning("%s", error)
        return BestCheckpoints(run / SCORES_FILE, is_writing=False, is_empty=True)


def _config(run: pathlib.Path, checkpoint: pathlib.Path) -> ConfigDict:
    """Return the run's configuration; of a checkpoint alone, the one stored in it."""
    if (run / CONFIG_FILE).is_file():
        return stored_config(run)
    try:
        return _config_of_checkpoint(checkpoint)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run} must hold {CONFIG_FILE}, or {checkpoint / ABOUT} the configuration "
            "of the run: neither can be read. Copy the run's config.json beside "
            "checkpoints/."
        ) from error


def _config_of_checkpoint(checkpoint: pathlib.Path) -> ConfigDict:
    about = json.loads((checkpoint / ABOUT).read_bytes())
    return config_lib.from_json(json.dumps(about["config"]))
