"""Networks as files for other programs: StableHLO (`jax.export`) and ONNX.

`segnext-jax export` writes a folder: ``model.stablehlo``, ``model.onnx``,
``metadata.json`` and ``load_exported.py``, which runs the first with jax alone.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any


def load(path: str | pathlib.Path) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Return (jitted function of images, metadata) of an exported folder.

    Raises:
      ValueError: If the folder holds no StableHLO program.
    """
    metadata = pathlib.Path(path) / "metadata.json"
    if not metadata.is_file():
        raise ValueError(
            "an exported folder must hold metadata.json, as segnext-jax "
            f"export writes it: {path} does not."
        )
    if "stablehlo" not in json.loads(metadata.read_text())["files"]:
        raise ValueError(
            f"{path} must hold a StableHLO program to be loaded by jax: it was "
            "exported without. Export it with --format=stablehlo,onnx."
        )
    # Here: the command's --help needs no jax.
    from segnext_jax.export import load_exported

    return load_exported.load(pathlib.Path(path))
