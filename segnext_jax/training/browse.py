"""Look at training crops: `segnext-jax browse --config=ade20k_tiny --output=sheet.png`.

The crops are those of the first steps of a run with this configuration, as the network
sees them: cut, mirrored and distorted by the training's own code.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax.cli import command, storage

# Of each crop on the sheet.
_LONG_SIDE_PX = 224


def main(arguments: Sequence[str]) -> None:
    """Draw training crops with their masks; see `--help`.

    Raises:
      ValueError: If the configuration cannot run, or is one of a classification.
      FileNotFoundError: If the data set is not prepared.
    """
    options, overrides = _parse(arguments)
    if options.count < 1:
        raise ValueError(f"--count must be at least 1: got {options.count}.")
    from segnext_jax import config as config_lib
    from segnext_jax.images import pictures

    pictures.check_path(options.output)
    # Threads give the same batches, and begin at once.
    config = config_lib.load(options.config, [*overrides, "data.num_workers=0"])
    if config.task != "segmentation":
        raise ValueError(
            "--config must be one of a segmentation, whose crops have masks: got one "
            f"of {config.task}."
        )
    import cv2
    import numpy as np

    from segnext_jax.cli.whole_files import whole_file
    from segnext_jax.datasets.resolve import resolve_spec
    from segnext_jax.ops import sharding
    from segnext_jax.training.tasks.segmentation import Segmentation
    from segnext_jax.training.tasks.segmentation_step import shown_crops

    spec = resolve_spec(config.data)
    cells, is_present = [], np.zeros(256, bool)
    with Segmentation(config, sharding.make_mesh()).make_loader() as loader:
        for step in range(-(-options.count // config.batch_size)):
            names, batch = loader.image_ids(step), next(loader)
            crops = shown_crops(config, step, batch)
            cells += zip(names, crops, batch["label"], strict=True)
    cells = cells[: options.count]
    for _, _, labels in cells:
        is_present[np.unique(labels)] = True
    height, width = config.data.crop_size
    factor = _LONG_SIDE_PX / max(height, width)
    panel = round(height * factor), round(width * factor)
    sheet = pictures.contact_sheet(cells, spec, panel, is_present, num_columns=4)
    with whole_file(options.output) as partial:
        cv2.imwrite(str(partial), sheet[..., ::-1])
    sys.stdout.write(f"Written: {options.output}\n")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "browse",
        "Draw the first training crops of a configuration as the network sees them, "
        "with their masks, as a sheet.",
        f"{command.ANY_FIELD} --config.seed=1 gives other crops.",
    )
    parser.add_argument(
        "--config", required=True, help="name of a shipped config, or a file"
    )
    parser.add_argument(
        "--output",
        type=storage.as_path,
        default=pathlib.Path("crops.png"),
        help="picture to write (default: crops.png)",
    )
    parser.add_argument(
        "--count", type=int, default=24, help="number of crops (default: 24)"
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
