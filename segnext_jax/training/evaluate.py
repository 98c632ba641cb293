"""Evaluate the weights of a folder: `segnext-jax evaluate`.

The evaluation takes the configuration that the folder stores, and then the fields that
the user sets. ``evaluation.json`` of a run holds the evaluation of the newest
checkpoint with the run's own settings. An evaluation of another checkpoint, or with
settings that may change numbers, goes into ``evaluations/`` below the run; each file
says which settings made it.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.checkpoints import reading, run_folder
from segnext_jax.cli import command
from segnext_jax.config.overrides import flatten
from segnext_jax.config.rules import changes_numbers
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation import worst as worst_lib
from segnext_jax.evaluation.worst import WorstImages
from segnext_jax.models.initialization import check_complete
from segnext_jax.ops import sharding
from segnext_jax.training.tasks.task import Metrics, make_task

EVALUATIONS = "evaluations"


def configure(
    workdir: pathlib.Path,
    overrides: Sequence[str] = (),
    config_file: str | None = None,
) -> tuple[ConfigDict, ConfigDict]:
    """Return the configuration to evaluate a folder by, and the one that it stores.

    Args:
      workdir: A run's folder, one of its checkpoints, or a model folder.
      overrides: ``"evaluation.flip=true"``, ...
      config_file: A config file, to say where it differs from what is stored.

    Raises:
      ValueError: If the folder stores no configuration, or a field has an impossible
        value or is not used by an evaluation.
    """
    run, _ = reading.run_of(workdir)
    config, stored = (reading.stored_config(run) for _ in range(2))
    config_lib.with_overrides(config, overrides, str(workdir))
    before = dict(flatten(stored))
    changed = [field for field, value in flatten(config) if value != before[field]]
    config_lib.refuse_unused(changed, "evaluation", str(workdir))
    if config_file is not None:
        _tell_of_file(config_file, overrides, config)
    return config, stored


def _tell_of_file(path: str, overrides: Sequence[str], config: ConfigDict) -> None:
    """Say which fields of a config file would give other numbers."""
    given = dict(flatten(config_lib.read_file(pathlib.Path(path))))
    overridden = {text.partition("=")[0] for text in overrides}
    for field, value in flatten(config):
        # A file of another version may lack fields.
        if field in overridden or field not in given:
            continue
        # Classes are named by the run, and need not be by the file.
        is_unnamed = field.startswith("data.") and given[field] == ()
        if changes_numbers(field) and given[field] != value and not is_unnamed:
            logging.info(
                "config.%s is %r in the run, %r in %s: the run's is taken (set it by "
                "--config.%s).",
                *(field, value, given[field], path, field),
            )


def evaluate(
    config: ConfigDict,
    workdir: pathlib.Path,
    which: str | int = reading.LATEST,
    stored: ConfigDict | None = None,
    output: pathlib.Path | None = None,
    num_worst: int = 0,
) -> Metrics:
    """Evaluate the weights of a folder, log and write the metrics.

    Args:
      config: The configuration of the evaluation.
      workdir: A run's folder, one of its checkpoints, or a model folder. With several
        draws of bases the table is that of the first.
      which: The checkpoint of a run: ``"latest"``, ``"best"`` or the number of a step.
      stored: The configuration of the folder; None: it is ``config``.
      output: Folder for the results; None: the folder of the weights. An evaluation
        writes nothing else into either.
      num_worst: Images to draw that have the largest share of wrong pixels.

    Raises:
      ValueError: If ``workdir`` holds no weights, or the weights of another network; or
        ``num_worst`` is impossible here.
    """
    run, _ = reading.run_of(workdir)
    differing = run_folder.differing_fields(config, stored or config)
    config = run_folder.with_classes(config, run)
    run_folder.check_network(config, run)
    mesh = sharding.make_mesh()
    task = make_task(config, mesh)
    found = weights.load(workdir, which)
    check_complete(task.model, found.variables)
    what = "the model" if found.step is None else f"step {found.step}"
    devices = command.counted(mesh.size, "device")
    logging.info("Evaluating %s of %s on %s.", what, workdir, devices)
    worst = _worst_images(config, num_worst)
    metrics, more = task.measure_draws(
        sharding.replicate(found.variables, mesh), worst and worst.add
    )
    if jax.process_index() == 0:  # All have the same numbers, and may share a disk.
        settings = run_folder.settings(config, which, differing)
        folder = output or _results_folder(run, found, differing)
        folder.mkdir(parents=True, exist_ok=True)
        task.write_results(metrics, found.step, folder, **more, settings=settings)
        if worst is not None:
            worst.write(folder / worst_lib.FOLDER)
            index = folder / worst_lib.FOLDER / worst_lib.INDEX_FILE
            logging.info("The worst images are in %s.", index)
    return metrics


def _worst_images(config: ConfigDict, count: int) -> WorstImages | None:
    if not count:
        return None
    if count < 0 or config.task != "segmentation" or jax.process_count() > 1:
        raise ValueError(
            "--worst must be a number of images, of a segmentation, in one process: "
            f"got {count}, {config.task} and {jax.process_count()} processes. Leave it "
            "out, or start one process."
        )
    return WorstImages(count, resolve_spec(config.data))


def _results_folder(
    run: pathlib.Path, found: reading.StoredModel, differing: dict[str, Any]
) -> pathlib.Path:
    """Return where results go; the run's own are not overwritten by others."""
    if found.is_newest and not differing:
        return run
    parts = [] if found.step is None else [f"step_{found.step}"]
    if differing:
        text = json.dumps(differing, sort_keys=True)
        parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
    return run / EVALUATIONS / "_".join(parts)
