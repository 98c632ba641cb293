"""Networks as files for other programs: StableHLO (`jax.export`) and ONNX.

`segnext-jax export` writes a folder: ``model.stablehlo``, ``model.onnx``,
``metadata.json`` and ``load_exported.py``, which runs the first with jax alone.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from segnext_jax.cli import storage
from segnext_jax.cli.command import first_line


def load(path: str | pathlib.Path) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Return (jitted function of images, metadata) of an exported folder.

    Raises:
      ValueError: If the folder holds no StableHLO program, or is damaged.
    """
    with storage.local(storage.as_path(path)) as folder:
        return _load(folder, path)


def _load(
    folder: pathlib.Path, path: str | pathlib.Path
) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    metadata = folder / "metadata.json"
    if not metadata.is_file():
        raise ValueError(
            "an exported folder must hold metadata.json, as segnext-jax "
            f"export writes it: {path} does not."
        )
    # Here: the command's --help needs no jax.
    from segnext_jax.export import load_exported

    try:
        has_program = "stablehlo" in json.loads(metadata.read_text())["files"]
        if has_program:
            return load_exported.load(folder)
    # Of a damaged file json, flatbuffers and jax raise many types.
    except Exception as error:
        raise ValueError(
            f"{path} must be as segnext-jax export has written it: reading it failed "
            f"with {type(error).__name__}: {first_line(error)}. Copy or export it "
            "again."
        ) from error
    raise ValueError(
        f"{path} must hold a StableHLO program to be loaded by jax: it was exported "
        "without. Export it with --format=stablehlo,onnx."
    )
