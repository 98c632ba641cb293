"""Prepared sets whose files were damaged on the way, as training reads them."""

import functools
import importlib.util
import shutil
from pathlib import Path

import ml_collections
import numpy as np

from segnext_jax.datasets import DatasetSpec
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.pipeline.sources import open_split
from segnext_jax.pipeline.transforms import decode_pair
from segnext_jax.preparation.command import prepare
from tests.robustness import mutations
from tests.robustness.case import Case

_ROOT = Path(__file__).parents[3]


@functools.cache
def _whole(scratch: Path) -> Path:
    """Prepare a set of one's own with few examples, once for each child."""
    path = _ROOT / "data" / "shapes" / "prepare.py"
    module_spec = importlib.util.spec_from_file_location("shapes_for_robustness", path)
    assert module_spec is not None and module_spec.loader is not None
    shapes = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(shapes)
    shapes.NUM_EXAMPLES = {"train": 2, "val": 1}
    folder = scratch / "prepared"
    prepare(shapes.Shapes(data_dir=folder))
    # Under another name, so that its classes come from its own metadata.
    return (folder / "shapes").rename(folder / "mine")


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a prepared set with a malformed file."""
    root = Path(shutil.copytree(_whole(folder.parent), folder / "mine"))
    version = root / DatasetSpec.version
    paths = sorted(version.iterdir())
    path = paths[int(rng.integers(len(paths)))]
    choice, is_json = int(rng.integers(6)), path.suffix == ".json"
    is_needed = is_json and path.name != "features.json" or "train" in path.name
    data, is_wrong = path.read_bytes(), False
    if choice == 0:
        what, data, is_wrong = "cut", mutations.cut(rng, data), is_needed
    elif choice == 1 and is_json:
        values = [
            b"",
            b"[1]",
            b"{}",
            b"null",
            b'{"classes": 3}',
            b"[" * 10**5,
            b"1e999",
        ]
        data = values[int(rng.integers(len(values)))]
        what, is_wrong = f"{data[:20]!r}", path.name == "metadata.json"
    elif choice == 2:
        what, is_wrong = "missing", is_needed
    else:
        what, data = mutations.mutate(rng, data)
    path.write_bytes(data)
    if choice == 2:
        path.unlink()
    names = {"name": "mine", "data_dir": str(folder), "classes": (), "folder": ""}
    section = ml_collections.ConfigDict(names)

    def read() -> None:
        source = open_split(section, resolve_spec(section), "train")
        for index in range(len(source)):
            decode_pair(source[index])

    return Case(f"{path.name} {what}", read, is_wrong)
