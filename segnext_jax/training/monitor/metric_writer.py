"""Where a run's numbers and pictures go: JSON lines, TensorBoard, PNG files."""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from segnext_jax.checkpoints import json_files
from segnext_jax.cli.whole_files import naming, to_json, whole_file

# tensorboardX imports PyTorch where it is installed, for tensors that nobody writes
# here: more than half of the time in which a training starts to compile.
_PYTORCH = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]: no module
from tensorboardX import summary  # noqa: E402
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto import event_pb2  # noqa: E402

if _PYTORCH is None:
    del sys.modules["torch"]

METRICS_FILE = "metrics.jsonl"
# Protobuf makes its classes when it is imported: type checkers know none.
_PROTO: Any = event_pb2


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
          ValueError: If the configuration asks for Weights & Biases, and the package is
            not installed.
        """
        self._is_writing = is_writing
        self._workdir = pathlib.Path(workdir)
        if not is_writing:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        # First what may be refused.
        self._wandb = _start_wandb(wandb_project, self._workdir)
        path = self._workdir / METRICS_FILE
        json_files.keep_steps(path, first_step, is_writing=True)
        self._file = path.open("a", buffering=1)
        self._tensorboard = _Events(self._workdir / "tensorboard", first_step + 1)

    def write(self, step: int, values: Mapping[str, Any], group: str = "train") -> None:
        """Write one line of named numbers; elsewhere their names begin with a group.

        Args:
          step: The step.
          values: Numbers, and dictionaries of them, as IoU by class; null for nan.
          group: ``"train"`` or ``"val"``: ``val/mIoU``, ``val_iou/sky``.
        """
        if not self._is_writing:
            return
        with naming(self._workdir / METRICS_FILE):
            self._file.write(to_json({"step": step, **values}) + "\n")
        numbers = _in_groups(values, group)
        scalars = [summary.scalar(name, value) for name, value in numbers.items()]
        self._tensorboard.write(step, scalars)
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
        picture = summary.image(f"overlays/{name}", image, dataformats="HWC")
        self._tensorboard.write(step, [picture])
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"overlays/{name}": wandb.Image(str(path))}, step=step)
        return path

    def close(self) -> None:
        """Flush and close."""
        if not self._is_writing:
            return
        # Closing tries again to write what could not be written before.
        with naming(self._workdir / METRICS_FILE):
            self._file.close()
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


class _Events:
    """Writes TensorBoard's events, at once.

    tensorboardX's own writer hands events to a thread. If the disk is full, the thread
    dies, and the training waits for ever for room in the thread's queue.
    """

    def __init__(self, folder: pathlib.Path, first_step: int) -> None:
        """Open a new file, in which earlier ones' steps from the first on are void."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        with naming(folder):
            self._writer = EventsWriter(str(folder / "events"))
        start = _PROTO.SessionLog(status=_PROTO.SessionLog.START)
        self._add(_PROTO.Event(step=first_step, session_log=start))

    def write(self, step: int, parts: Sequence[Any]) -> None:
        """Write the parts of a step's summary."""
        if not parts:
            return
        event = _PROTO.Event(step=step)
        for part in parts:
            event.summary.MergeFrom(part)
        self._add(event)

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        with naming(self._folder):
            self._writer.write_event(event)
            self._writer.flush()

    def close(self) -> None:
        with naming(self._folder):
            self._writer.close()


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
