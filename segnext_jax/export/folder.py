"""The folder that is written: programs, metadata and loader; whole or not at all."""

import json
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from segnext_jax.cli.command import first_line
from segnext_jax.cli.whole_files import whole_folder
from segnext_jax.export import (
    load_exported,
    metadata,
    onnx_file,
    stablehlo,
    web_page,
)
from segnext_jax.export.comparison import (
    Comparison,
    Tell,
    draw_images,
    tell_file,
)
from segnext_jax.export.program import Signature, make_function, make_reference
from segnext_jax.predict.predictor import Predictor

FILES = {"stablehlo": stablehlo.FILE, "onnx": onnx_file.FILE}
FORMATS = tuple(FILES)
LOADER = "load_exported.py"


def check_target(target: pathlib.Path, overwrite: bool) -> None:
    """Refuse a target that holds anything but an exported network to overwrite.

    Raises:
      ValueError: If the target holds other files, or an exported network and not
        ``overwrite``.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / metadata.FILE).is_file():
        raise ValueError(
            f"the folder to write must be new or empty: {target} holds other files. "
            "Name another."
        )
    if not overwrite:
        raise ValueError(
            f"the folder to write must be new: {target} holds an exported network. "
            "Name another, or pass --existing=overwrite."
        )


def write(
    target: pathlib.Path,
    predictor: Predictor,
    signature: Signature,
    *,
    formats: Sequence[str],
    platforms: Sequence[str],
    dtype: str,
    checkpoint: str,
    tell: Tell,
    precision: str = "float32",
    photographs: Sequence[np.ndarray] = (),
    runtime: pathlib.Path | None = None,
    overwrite: bool = False,
) -> None:
    """Export a network and compare each file with it.

    Args:
      target: A new folder.
      predictor: The network.
      signature: What goes in and comes out.
      formats: Among `FORMATS`.
      platforms: Platforms of the StableHLO program, among `options.PLATFORMS`.
      dtype: Type of activations of the StableHLO program.
      checkpoint: Where the weights come from, for the metadata.
      tell: Takes one line for each file.
      precision: Precision of the ONNX graph, among `onnx_file.PRECISIONS`.
      photographs: RGB bytes [1, height, width, 3], for a graph of eight bits.
      runtime: The archive that `web_page.fetch_runtime` returned; None: no page is
        written.
      overwrite: Whether an exported network may be replaced.

    Raises:
      ValueError: If the target may not be written, a platform is unknown, a library is
        missing, or a file does not compute what the network does. Where one of several
        formats fails, the others are written before.
    """
    check_target(target, overwrite)
    target = target.absolute()
    comparison = Comparison(
        make_reference(predictor, signature, dtype=dtype),
        draw_images(signature, tuple(predictor.config.data.crop_size)),
        is_label=signature.output == "labels",
    )
    writers = {
        "stablehlo": lambda new: _write_stablehlo(
            *(new, make_function(predictor, signature, dtype=dtype), signature),
            *(platforms, comparison, tell),
        ),
        "onnx": lambda new: onnx_file.write(
            *(new, predictor, signature, precision, photographs, comparison, tell)
        ),
    }
    files, failures = {}, {}
    with whole_folder(target) as new:
        for name in formats:
            try:
                files[name] = writers[name](new)
            # Libraries raise errors of any type. A format that fails must not cost the
            # user the formats that are written.
            except Exception as error:
                failures[name] = error
                (new / FILES[name]).unlink(missing_ok=True)
        if "onnx" in files and runtime is not None:
            web_page.write(new, runtime)
            size = sum(path.stat().st_size for path in new.rglob("*.*")) / 1e6
            tell(f"index.html: with all that it needs {size:.1f} MB")
        if not files:
            raise next(iter(failures.values()))
        description = metadata.describe(
            predictor, signature, dtype=dtype, checkpoint=checkpoint, files=files
        )
        text = json.dumps(description, indent=2)
        (new / metadata.FILE).write_text(text + "\n")
    for name, error in failures.items():
        raise ValueError(
            f"every format must be written: {', '.join(files)} is in {target}, {name} "
            f"is not, because {first_line(error)}"
        ) from error


def _write_stablehlo(
    folder: pathlib.Path,
    function: Any,
    signature: Signature,
    platforms: Sequence[str],
    comparison: Comparison,
    tell: Tell,
) -> dict[str, Any]:
    start = time.perf_counter()
    exported = stablehlo.export(function, signature, platforms)
    path = folder / stablehlo.FILE
    entry = stablehlo.write(folder, exported)
    tell_file(tell, path, time.perf_counter() - start)
    if not stablehlo.runs_here(exported):
        tell(f"  not compared: exported for {', '.join(platforms)}, none of them here")
    else:
        difference = comparison.difference(stablehlo.read(path))
        tell(f"  {comparison.tell(difference)}")
        entry |= comparison.describe(difference)
    shutil.copy(load_exported.__file__, folder / LOADER)
    return entry
