"""Where a run's numbers and pictures go: JSON lines, TensorBoard, PNG files."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorboardX
from jaxtyping import UInt8
from PIL import Image

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes ``metrics.jsonl``, ``tensorboard/`` and ``overlays/`` in a workdir."""

    def __init__(self, workdir: str | pathlib.Path, first_step: int = 0):
        """Open the files of a workdir.

        Args:
          workdir: The run's folder; made when missing.
          first_step: The step from which the run goes on. What an interrupted run has
            written of later steps is removed, as they will be done again.
        """
        self._workdir = pathlib.Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        path = self._workdir / METRICS_FILE
        if path.exists():
            _drop_after(path, first_step)
        self._file = path.open("a", buffering=1)
        self._tensorboard = tensorboardX.SummaryWriter(
            str(self._workdir / "tensorboard"), purge_step=first_step + 1
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line of named numbers; nested values go to JSON alone."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._tensorboard.add_scalar(name, value, step)

    def write_overlay(
        self, step: int, name: str, image: UInt8[np.ndarray, "height width 3"]
    ) -> pathlib.Path:
        """Write an RGB picture as PNG and to TensorBoard; return the file's path."""
        folder = self._workdir / "overlays" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name.replace('/', '_')}.png"
        Image.fromarray(image).save(path)
        self._tensorboard.add_image(f"overlays/{name}", image, step, dataformats="HWC")
        return path

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._tensorboard.close()


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Remove lines of later steps, and a line that was cut short."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            is_kept = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            is_kept = False
        if is_kept:
            kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(path)
