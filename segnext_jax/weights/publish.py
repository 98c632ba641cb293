"""Publish a network: `segnext-jax publish`.

    segnext-jax publish --checkpoint=runs/ade --output=shared
    segnext-jax publish --checkpoint=runs/ade --output=hf://user/name

The model alone, with its checksum and a card: results, classes and a picture.
"""

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segnext_jax.cli import command, storage
from segnext_jax.cli.whole_files import whole_folder

if TYPE_CHECKING:
    from segnext_jax.checkpoints.reading import StoredModel


def main(arguments: Sequence[str]) -> None:
    """Publish one network; see `--help`.

    Raises:
      ValueError: If the network cannot be published.
    """
    options = _parse(arguments)
    from segnext_jax import weights
    from segnext_jax.weights import hub, shared_folder

    command.set_up_logging()
    target = storage.as_path(options.output)
    is_for_hub = hub.is_address(options.output)
    if is_for_hub:
        hub.parse(options.output)
    elif target.exists() and options.existing == "error":
        raise ValueError(
            f"--output must be a new folder, or hf://user/name: {target} exists. Name "
            "another, or pass --existing=overwrite."
        )
    elif target.exists() and not shared_folder.is_shared(target):
        raise ValueError(
            f"--existing=overwrite replaces a published network: {target} holds none. "
            "Name another folder."
        )
    source = weights.find(options.checkpoint)
    if not source.is_dir():
        raise ValueError(
            "--checkpoint must be a run or a model folder, which have a "
            f"configuration: {source} is a file. Convert it first "
            "(segnext-jax convert)."
        )
    stored = weights.load(source, options.which)
    if not is_for_hub:
        with whole_folder(target) as partial:
            _write(partial, stored, target.name, options)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            _write(pathlib.Path(scratch), stored, options.output, options)
            hub.upload(pathlib.Path(scratch), options.output)
    sys.stdout.write(f"published {options.output}: {stored}\n")


def _write(
    folder: pathlib.Path, stored: "StoredModel", name: str, options: argparse.Namespace
) -> None:
    from segnext_jax.weights import shared_folder
    from segnext_jax.weights.card import card

    assert stored.config is not None  # Folders have one.
    picture = options.picture or _overlay(stored)
    sha256 = shared_folder.write(folder, stored, picture)
    text = card(
        stored,
        shared_folder.public_config(stored.config),
        name,
        sha256,
        licence=options.licence,
        evaluation=_evaluation(stored),
        has_picture=picture is not None,
    )
    (folder / shared_folder.CARD_FILE).write_text(text)


def _overlay(stored: "StoredModel") -> pathlib.Path | None:
    """Return a picture that the run has drawn of these weights, if there is one."""
    if stored.step is None:
        return None
    folder = stored.path / "overlays" / f"step_{stored.step:07d}"
    return next(iter(sorted(folder.glob("*.png"))), None)


def _evaluation(stored: "StoredModel") -> dict[str, Any]:
    """Return the evaluation of these weights that lies beside them; empty if none."""
    try:
        found = json.loads((stored.path / "evaluation.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if found.get("step") == stored.step else {}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(
        "publish",
        "Write a network with its card, for others, or to the hub.",
        renamed=command.OVERWRITE,
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a run's workdir, or a model folder"
    )
    command.add_which(parser)
    parser.add_argument("--output", required=True, help="new folder, or hf://user/name")
    parser.add_argument(
        "--picture",
        type=storage.as_path,
        help="for the card (default: an overlay that the run has drawn)",
    )
    parser.add_argument(
        "--licence", default="other", help="of the weights (default: %(default)s)"
    )
    command.add_existing(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
