"""Flax variables of a checkpoint file."""

import pathlib

from segnext_jax.convert import files
from segnext_jax.convert.weights import Converted, Variables, from_state_dict
from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import Variant


def from_file(
    path: str | pathlib.Path,
    *,
    variant: Variant | None = None,
    num_classes: int | None = None,
    strict: bool = True,
) -> Converted:
    """Return the Flax variables of a checkpoint file; see `from_state_dict`.

    Raises:
      ValueError: If the file cannot be read (see `files.read`) or does not fit.
    """
    try:
        return from_state_dict(
            files.read(path), variant=variant, num_classes=num_classes, strict=strict
        )
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def encoder(path: str | pathlib.Path) -> tuple[MSCAN, Variables]:
    """Return the encoder of a checkpoint file, and its variables.

    Args:
      path: An encoder (``mscan_t.pth``), a classifier, or a whole network, whose
        decoder is left out.

    Raises:
      ValueError: If `from_file` refuses the file.
    """
    converted = from_file(path)
    variables = {
        name: tree["backbone"]
        for name, tree in converted.variables.items()
        if "backbone" in tree
    }
    return MSCAN(**converted.source.variant.encoder_sizes()), variables
