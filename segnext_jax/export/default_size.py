"""The size to export where none is given: what evaluation makes of a photograph."""

import collections
import contextlib
import itertools
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from segnext_jax.datasets.folder import find_splits
from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.images.decode import exif_orientation
from segnext_jax.images.headers import read_header
from segnext_jax.pipeline import Fitting

Size = tuple[int, int]

# Most cameras have this shape; where a set's photographs are not known.
USUAL_PHOTOGRAPH = (480, 640)
NUM_LOOKED_AT = 100


def default_size(
    config: ConfigDict, spec: DatasetSpec, multiple: int
) -> tuple[Size, str]:
    """Return (height, width) in pixels, and where it comes from, in words.

    If evaluation sees windows, this is the size of a window. Otherwise it is the size
    that `config.evaluation.scale` gives the usual photograph: the most frequent size
    among a folder's first photographs, else the data set's, else `USUAL_PHOTOGRAPH`.

    Args:
      config: The network's.
      spec: Its data set.
      multiple: Both sides are rounded up to it.
    """
    evaluation = config.evaluation
    if evaluation.mode == "slide":
        size, origin = tuple(evaluation.window), "evaluation's windows"
    else:
        photograph, whose = _usual_photograph(config, spec)
        size = Fitting.from_config(evaluation).sizes(photograph)[0].outer
        origin = f"evaluation's for {whose}, {photograph[0]}x{photograph[1]}"
    height, width = (-(-side // multiple) * multiple for side in size)
    return (height, width), origin


def _usual_photograph(config: ConfigDict, spec: DatasetSpec) -> tuple[Size, str]:
    if config.data.name == FOLDER and config.data.folder:
        folder = pathlib.Path(config.data.folder).expanduser()
        sizes = collections.Counter(_sizes(folder))
        if sizes:
            return sizes.most_common(1)[0][0], f"most photographs of {folder}"
    if spec.photograph_size is not None:
        return spec.photograph_size, f"the usual photograph of {spec.name}"
    return USUAL_PHOTOGRAPH, "a usual photograph"


def _sizes(folder: pathlib.Path) -> Iterator[Size]:
    """Yield the sizes of a folder's first photographs, as far as they can be read."""
    # The network is whole where the folder on which it was trained no longer is.
    with contextlib.suppress(OSError, ValueError):
        examples = itertools.chain(*find_splits(folder).values())
        for example in itertools.islice(examples, NUM_LOOKED_AT):
            encoded = example.image.read_bytes()
            size = read_header(encoded).size
            if size is not None:
                height, width = size
                is_turned = exif_orientation(encoded) > 4
                yield (width, height) if is_turned else size
