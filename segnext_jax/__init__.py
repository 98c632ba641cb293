"""SegNeXt semantic segmentation in JAX."""

import importlib
import os
import pathlib
import typing
from collections.abc import Sequence

if typing.TYPE_CHECKING:
    from segnext_jax import config, convert, datasets, export, models, ops
    from segnext_jax.predict.predictor import Predictor

__version__ = "0.2.0"
__all__ = [
    "__version__",
    "config",
    "convert",
    "datasets",
    "export",
    "load",
    "models",
    "ops",
    "train",
]


def __getattr__(name: str) -> typing.Any:
    """Import a public package when it is first asked for.

    ``import segnext_jax`` alone imports neither jax nor flax.
    """
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def train(
    folder: str | os.PathLike[str],
    variant: str = "tiny",
    workdir: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> "Predictor":
    """Train on a folder of photographs and masks; return the network.

    What is not set is chosen for the set and the machine, as by ``segnext-jax train
    FOLDER``. A run that is there goes on. A script that trains on a GPU, where worker
    processes read the photographs, calls this under ``if __name__ == "__main__":``.

    Args:
      folder: It has images/ and masks/; docs/own_data.md has the forms.
      variant: tiny, small, base or large.
      workdir: The run's folder, or its address, gs:// or s3://; None: ``runs/NAME``
        for a folder of that name.
      overrides: Fields of the configuration to set: ``"num_steps=2000"``, ...

    Raises:
      ValueError: If the folder cannot be trained on, or a field has an impossible
        value.
    """
    from segnext_jax.cli import command, storage
    from segnext_jax.training import recipe

    command.set_up_logging()
    overrides = [f"model.variant={variant}", *overrides]
    chosen = storage.as_path(workdir) if workdir is not None else None
    return load(recipe.train(pathlib.Path(folder), chosen, overrides))


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
      which: The checkpoint of a run: ``"latest"``, ``"best"`` (by mIoU) or the number
        of a step.

    Raises:
      ValueError: If there is no whole network at ``path``, or a field has an impossible
        value.
    """
    # Imported here: the worker processes of the input pipeline import the package too,
    # and never touch a device.
    from segnext_jax.predict.predictor import load

    return load(path, dataset, overrides, which)
