"""Steps whose loss, gradient or update is not finite: their images and their number.

The train step does not change the weights in such a step, so that a broken batch costs
the run one step and nothing else. This module writes broken steps down, and ends the
run if there are more than the configuration allows.
"""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import logging

from segnext_jax.checkpoints import json_files
from segnext_jax.checkpoints.bucket_run import BucketRun
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.checkpoints.model_folder import CONFIG_FILE
from segnext_jax.training.state import TrainState

LIST_FILE = "broken_steps.jsonl"
STATE_FOLDER = "broken_state"


class BrokenSteps:
    """Counts broken steps of a run."""

    def __init__(
        self,
        workdir: pathlib.Path,
        num_allowed: int,
        first_step: int = 0,
        bucket: BucketRun | None = None,
    ) -> None:
        """Begin with the broken steps that the run has had in all its earlier starts.

        Args:
          workdir: The run's folder.
          num_allowed: So many steps may be broken before the run ends.
          first_step: The step from which the run goes on; later ones are done again.
          bucket: Where the folder is brought, if anywhere.
        """
        self._bucket = bucket
        self._workdir = workdir
        self._num_allowed = num_allowed
        before = json_files.keep_steps(
            workdir / LIST_FILE, first_step, is_writing=jax.process_index() == 0
        )
        self._count = len(before)

    def add(
        self,
        broken: Mapping[int, Mapping[str, float]],
        step: int,
        state: TrainState,
        image_ids: Callable[[int], Sequence[str]],
    ) -> None:
        """Write broken steps down; end the run if there are too many.

        Args:
          broken: Loss, gradient norm and update norm by step.
          step: The last step that was done.
          state: After it, without the updates of the broken ones.
          image_ids: Gives the names of the images of a batch, by its number.

        Raises:
          FloatingPointError: If there are more broken steps than the run allows.
        """
        if not broken:
            return
        self._count += len(broken)
        first = min(broken)
        path = self._workdir / LIST_FILE
        if jax.process_index() == 0:
            with path.open("a") as file:
                for number, metrics in broken.items():
                    # Batch 0 is that of step 1.
                    names = list(image_ids(number - 1))
                    values = {name: repr(value) for name, value in metrics.items()}
                    line = {"step": number, **values, "image_ids": names}
                    file.write(json.dumps(line) + "\n")
        if self._count <= self._num_allowed:
            logging.warning(
                "Loss, gradient or update of step %s is not finite: nothing was "
                "moved (%d of at most %d such steps; their images: %s).",
                ", ".join(map(str, broken)),
                self._count,
                self._num_allowed,
                path,
            )
            return
        folder = self._workdir / STATE_FOLDER
        checkpoints = Checkpoints(folder, bucket=self._bucket)
        model, rest = state.to_checkpoint()
        checkpoints.save(
            step, model=model, optimizer=rest, iterator={"next_batch": first - 1}
        )
        checkpoints.close()
        config = self._workdir / CONFIG_FILE
        if jax.process_index() == 0 and config.exists():
            # With its configuration the folder can be loaded like a run's own.
            shutil.copy(config, folder / CONFIG_FILE)
        raise FloatingPointError(
            f"loss, gradient and update must be finite: they were not at step {first}"
            f"{_others(len(broken))}, and config.max_broken_steps allows "
            f"{self._num_allowed}. The images of the step are in {path}, the state "
            f"without its update in {folder}; look at them, lower "
            "config.optimizer.learning_rate, or allow some. The run's checkpoints are "
            "whole."
        )


def _others(count: int) -> str:
    return f" and {count - 1} later ones" if count > 1 else ""
