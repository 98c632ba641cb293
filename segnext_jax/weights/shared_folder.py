"""A network to give to others: a folder as the Hugging Face hub has them.

config.json        the configuration, without paths of the machine
model.safetensors  parameters and batch statistics under the official PyTorch names
README.md          the model card
picture.jpg        what it sees, if a picture was given
SHA256SUMS         checksums of the first two, as sha256sum -c reads them
"""

import hashlib
import pathlib

from ml_collections import ConfigDict
from PIL import Image

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import reading
from segnext_jax.checkpoints.model_folder import CONFIG_FILE
from segnext_jax.checkpoints.reading import StoredModel
from segnext_jax.cli import storage
from segnext_jax.cli.download import checksum_fault
from segnext_jax.convert import files
from segnext_jax.convert.weights import from_state_dict, to_state_dict
from segnext_jax.datasets import SPECS
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.models.segnext import SegNeXt

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
PICTURE_FILE = "picture.jpg"
CHECKSUMS_FILE = "SHA256SUMS"
# A card is read on screens.
_MAX_PICTURE_SIDE = 1600
# Fields that tell of the machine, not of the network.
_OF_THE_MACHINE = ("init_from", "init_which", "wandb_project")


def is_shared(folder: pathlib.Path) -> bool:
    """Tell whether a folder is of this kind."""
    return all((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE))


def read(folder: pathlib.Path) -> StoredModel:
    """Return the network of such a folder, after a look at its checksums.

    Raises:
      ValueError: If the folder is damaged or incomplete.
    """
    sums = folder / CHECKSUMS_FILE
    # Damaged bytes name no file that there is.
    text = sums.read_text(errors="replace") if sums.is_file() else ""
    for line in text.splitlines():
        digits, _, name = line.partition("  ")
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} is not whole: {name} is missing. Fetch it again."
            )
        fault = checksum_fault(folder / name, f"sha256:{digits}")
        if fault:
            raise ValueError(
                f"{folder / name} is not what was published: {fault}. Fetch it again, "
                f"or, if it was changed on purpose, delete {CHECKSUMS_FILE}."
            )
    config = reading.stored_config(folder)
    variant = SegNeXt.from_config(config.model, num_classes=1).variant
    try:
        content = files.read(folder / WEIGHTS_FILE)
        converted = from_state_dict(content, variant=variant)
    except ValueError as error:
        raise ValueError(f"{folder} cannot be used: {error}") from error
    return StoredModel(converted.variables, config, folder)


def write(
    folder: pathlib.Path, stored: StoredModel, picture: pathlib.Path | None
) -> str:
    """Write all but the card into an empty folder.

    Args:
      folder: The folder.
      stored: The network.
      picture: Image file for the card.

    Returns:
      The SHA-256 of the weights.

    Raises:
      ValueError: If the network has no official names, or the picture does not exist.
    """
    assert stored.config is not None  # Folders have one.
    text = config_lib.to_json(public_config(stored.config))
    (folder / CONFIG_FILE).write_text(text)
    files.write(folder / WEIGHTS_FILE, to_state_dict(stored.variables), {})
    sums = {name: _sha256(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    lines = "".join(f"{digits}  {name}\n" for name, digits in sums.items())
    (folder / CHECKSUMS_FILE).write_text(lines)
    if picture is not None:
        _copy_picture(picture, folder / PICTURE_FILE)
    return sums[WEIGHTS_FILE]


def public_config(config: ConfigDict) -> ConfigDict:
    """Return a copy that names the classes, and no folder of this machine."""
    config = config.copy_and_resolve_references()
    default = config_lib.base_config()
    if config.task == "segmentation" and config.data.name not in SPECS:
        spec = resolve_spec(config.data)
        config.data.classes, config.data.colours = spec.classes, spec.colours
    for field in _OF_THE_MACHINE:
        config[field] = default[field]
    config.data.data_dir = default.data.data_dir
    # The folder's name must stay, because it is the name of the data set.
    config.data.folder = pathlib.PurePath(config.data.folder).name
    return config


def _copy_picture(source: pathlib.Path, target: pathlib.Path) -> None:
    try:
        with storage.local(source) as file, Image.open(file) as image:
            image = image.convert("RGB")
    except OSError as error:
        raise ValueError(
            f"--picture must be an image: {source} cannot be read ({error})."
        ) from error
    image.thumbnail((_MAX_PICTURE_SIDE, _MAX_PICTURE_SIDE))
    image.save(target, quality=90)


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
