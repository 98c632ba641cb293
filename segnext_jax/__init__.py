"""SegNeXt semantic segmentation in JAX."""

import os
import typing
from collections.abc import Sequence

if typing.TYPE_CHECKING:
    from segnext_jax.predict.predictor import Predictor

__version__ = "0.1.0"


def load(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    which: str | int = "latest",
) -> "Predictor":
    """Load a trained network; see `segnext_jax.predict.predictor.load`.

    Args:
      path: A run's workdir or one of its checkpoints, a converted folder, or a PyTorch
        checkpoint.
      dataset: Whose classes a checkpoint file knows; needed where their number does not
        tell it.
      overrides: Fields of its configuration to set: ``"evaluation.mode=slide"``, ...
      which: Of a run: ``"latest"``, ``"best"`` (by mIoU) or the number of a step.

    Raises:
      ValueError: If there is no whole network at ``path``, or a field cannot be so.
    """
    # Imported here: the worker processes of the input pipeline import the package too,
    # and never touch a device.
    from segnext_jax.predict.predictor import load

    return load(path, dataset, overrides, which)
