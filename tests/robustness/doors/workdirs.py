"""Folders of runs that were damaged, as evaluate reads them and a resume begins."""

import functools
import shutil
from pathlib import Path

import jax
import numpy as np

from segnext_jax import weights
from segnext_jax.checkpoints import json_files as run_files
from segnext_jax.checkpoints import reading, run_folder
from segnext_jax.training.evaluate import configure
from tests.robustness import json_files, mutations
from tests.robustness.case import Case
from tests.robustness.old_run import unpacked

_METRICS = b'{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n{"step": 6}\n'


@functools.cache
def _weights(scratch: Path, step: int) -> dict:
    return reading.read(unpacked(scratch) / "run", step).variables


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a run's folder with one malformed file."""
    run = folder / "run"
    shutil.copytree(unpacked(folder.parent) / "run", run)
    (run / "metrics.jsonl").write_bytes(_METRICS)
    which = str(rng.choice([reading.LATEST, reading.BEST, "4", "6"]))
    whole = {step: _weights(folder.parent, step) for step in (4, 6)}
    small = int(rng.integers(2))
    paths = sorted(run.glob("*.json*") if small else run.rglob("checkpoints/*/**/*"))
    paths = [path for path in paths if path.is_file()]
    path = paths[int(rng.integers(len(paths)))]
    name = path.relative_to(run)
    what, is_wrong = _damage(rng, path)
    # What holds the weights of the one checkpoint that is asked for.
    is_wrong &= which in name.parts and "model" in name.parts
    is_wrong |= which == reading.BEST and what == "cut" and name.name == "scores.json"

    def use() -> None:
        config, stored = configure(run)
        run_folder.differing_fields(config, stored)
        config = run_folder.with_classes(config, run)
        run_folder.check_network(config, run)
        found = weights.load(run, which)
        assert found.step is not None
        run_files.keep_steps(run / "metrics.jsonl", found.step, is_writing=True)
        jax.tree.map(np.testing.assert_array_equal, found.variables, whole[found.step])

    return Case(f"{name} {what}, {which}", use, is_wrong)


def _damage(rng: np.random.Generator, path: Path) -> tuple[str, bool]:
    """Damage a file; return how, and whether its contents are others now."""
    data = path.read_bytes()
    choice = int(rng.integers(5))
    if choice == 0:
        path.unlink()
        return "missing", True
    if choice == 1:
        path.write_bytes(b"")
        return "empty", bool(data)
    if choice == 2 and path.suffix == ".json":
        what, changed, _ = json_files.malformed(rng, data)
    elif choice == 3:
        what, changed = "cut", mutations.cut(rng, data)
    elif choice == 4:
        bit = int(rng.integers(8 * len(data)))
        what, changed = f"bit {bit}", bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
    else:
        what, changed = mutations.mutate(rng, data)
    path.write_bytes(changed)
    return what, bytes(changed) != data
