"""Folders of exported networks, as programs load and call them."""

import functools
import json
from pathlib import Path

import numpy as np

from segnext_jax.export import load, stablehlo
from segnext_jax.export.program import Signature
from tests.robustness import json_files, mutations
from tests.robustness.case import Case
from tests.robustness.pictures import FOREIGN

_SIGNATURE = Signature((32, 64), 1)


@functools.cache
def _whole(scratch: Path) -> tuple[bytes, bytes]:
    """Return the two files of a program with a network's signature, but small."""
    factors = np.linspace(0, 1, 3 * 5, dtype=np.float32).reshape(3, 5)

    def function(images):
        return (images.astype(np.float32) @ factors).argmax(-1).astype(np.uint8)

    entry = stablehlo.write(scratch, stablehlo.export(function, _SIGNATURE, ["cpu"]))
    metadata = {"classes": list("abcde"), "files": {"stablehlo": entry}}
    return json.dumps(metadata).encode(), (scratch / stablehlo.FILE).read_bytes()


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write an exported folder."""
    text, program = _whole(folder.parent)
    whole = program
    choice = int(rng.integers(6))
    what, is_wrong = "as it should be", False
    if choice == 0:
        what, program = "program cut", mutations.cut(rng, program)
    elif choice == 1:
        what, program = mutations.mutate(rng, program)
    elif choice == 2:
        program = FOREIGN[int(rng.integers(len(FOREIGN)))]
        what = f"program {program[:12]!r}"
    elif choice in (3, 4):
        what, text, is_wrong = json_files.malformed(rng, text)
        what = f"metadata {what}"
    (folder / "metadata.json").write_bytes(text)
    (folder / stablehlo.FILE).write_bytes(program)

    def use() -> None:
        function, _ = load(folder)
        labels = function(np.zeros((1, 32, 64, 3), np.uint8))
        assert np.shape(labels) == (1, 32, 64)

    return Case(what, use, is_wrong or program != whole)
