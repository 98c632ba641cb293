"""Where a run's numbers and pictures go: JSON lines, TensorBoard, PNG files."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorboardX
from jaxtyping import UInt8
from PIL import Image

from segnext_jax.cli.whole_files import whole_file

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes ``metrics.jsonl``, ``tensorboard/`` and ``overlays/`` in a workdir."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        first_step: int = 0,
        wandb_project: str = "",
        *,
        is_writing: bool = True,
    ):
        """Open the files of a workdir.

        Args:
          workdir: The run's folder; made when missing.
          first_step: The step from which the run goes on. What an interrupted run has
            written of later steps is removed, as they will be done again.
          wandb_project: Project of Weights & Biases that gets the numbers and pictures
            as well; empty for none.
          is_writing: False in all but one of several processes.

        Raises:
          ValueError: If Weights & Biases is asked for and not installed.
        """
        self._is_writing = is_writing
        self._workdir = pathlib.Path(workdir)
        if not is_writing:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        # First what may be refused.
        self._wandb = _start_wandb(wandb_project, self._workdir)
        path = self._workdir / METRICS_FILE
        if path.exists():
            _drop_after(path, first_step)
        self._file = path.open("a", buffering=1)
        self._tensorboard = tensorboardX.SummaryWriter(
            str(self._workdir / "tensorboard"), purge_step=first_step + 1
        )

    def write(self, step: int, values: Mapping[str, Any], group: str = "train") -> None:
        """Write one line of named numbers; elsewhere their names begin with a group.

        Args:
          step: The step.
          values: Numbers, and dictionaries of them, as IoU by class.
          group: ``"train"`` or ``"val"``: ``val/mIoU``, ``val_iou/sky``.
        """
        if not self._is_writing:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = _in_groups(values, group)
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def overlays_dir(self, step: int) -> pathlib.Path:
        """Return the folder of a step's pictures; missing if there are none."""
        return self._workdir / "overlays" / f"step_{step:07d}"

    def write_overlay(
        self, step: int, name: str, image: UInt8[np.ndarray, "height width 3"]
    ) -> pathlib.Path:
        """Write an RGB picture as PNG and to TensorBoard; return the file's path."""
        folder = self.overlays_dir(step)
        path = folder / f"{name.replace('/', '_')}.png"
        if not self._is_writing:
            return path
        with whole_file(path) as partial:
            Image.fromarray(image).save(partial)
        self._tensorboard.add_image(f"overlays/{name}", image, step, dataformats="HWC")
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"overlays/{name}": wandb.Image(str(path))}, step=step)
        return path

    def close(self) -> None:
        """Flush and close."""
        if not self._is_writing:
            return
        self._file.close()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _in_groups(values: Mapping[str, Any], group: str) -> dict[str, float]:
    """Return the numbers under the names by which TensorBoard sorts its charts."""
    numbers = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= _in_groups(value, f"{group}_{name.lower()}")
        elif isinstance(value, int | float):
            numbers[f"{group}/{name}"] = value
    return numbers


def _start_wandb(project: str, workdir: pathlib.Path) -> Any:
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        raise ValueError(
            "config.wandb_project asks for Weights & Biases, which is not installed: "
            "pip install wandb, or leave the field empty."
        ) from None
    # One folder is one run there, however often it is started.
    name = workdir.absolute().name
    return wandb.init(project=project, id=name, resume="allow", dir=str(workdir))


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
    with whole_file(path) as partial:
        partial.write_text("".join(kept))
