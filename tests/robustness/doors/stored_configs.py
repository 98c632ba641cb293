"""config.json of a run, as evaluate and predict read it."""

from pathlib import Path

import numpy as np

from segnext_jax.checkpoints import run_folder
from segnext_jax.training.evaluate import configure
from tests.robustness import json_files
from tests.robustness.case import Case
from tests.robustness.old_run import unpacked


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a run's configuration."""
    whole = unpacked(folder.parent) / "run" / "config.json"
    what, data, is_wrong = json_files.malformed(rng, whole.read_bytes())
    (folder / whole.name).write_bytes(data)

    def use() -> None:
        config, stored = configure(folder)
        run_folder.differing_fields(config, stored)
        config = run_folder.with_classes(config, folder)
        run_folder.check_network(config, folder)

    return Case(what, use, is_wrong)
