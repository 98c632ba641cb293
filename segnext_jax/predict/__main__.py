"""Predict: `segnext-jax predict --checkpoint=runs/ade photos --output=out`.

Inputs are image files, folders, patterns and videos. Each format has its own folder
below the output: `out/labels/<name>.png`, `out/overlay/<name>.jpg`, ...

Exit codes: 0: all inputs are predicted. 1: no input is predicted, or an error ended the
command. 2: the command line is wrong. 3: some inputs cannot be read, and the command
names them; all others are predicted.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax.cli import command

# Exit code where some inputs could not be predicted, and all others have been.
INCOMPLETE = 3


def main(arguments: Sequence[str]) -> None:
    """Predict; see `--help`.

    Raises:
      ValueError: If the command line is impossible, or none of the inputs can be read.
      SystemExit: If some of the inputs cannot be read, with code 3.
    """
    given, overrides = _parse(arguments)
    command.set_up_compilation_cache()
    import cv2

    from segnext_jax.predict import inputs, jobs
    from segnext_jax.predict.files import FileOptions

    options = jobs.Options(
        output=given.output,
        formats=tuple(dict.fromkeys(given.format.split(","))),
        existing=given.existing,
        batch_size=given.batch_size,
        files=FileOptions(
            opacity=given.overlay_opacity,
            max_picture_side=given.max_picture_side,
            probability_type=given.probability_type,
        ),
    )
    command.set_up_logging()
    found = inputs.find_inputs(given.inputs, options.folders)
    from segnext_jax.predict.predictor import load
    from segnext_jax.predict.run import run

    # The command itself names the broken files, so OpenCV need not.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    predictor = load(given.checkpoint, given.dataset, overrides, given.which)
    planned = jobs.plan(found, options, predictor.spec)
    failures = run(predictor, planned, options)
    if failures:
        sys.stderr.write(
            f"{len(failures)} of {len(planned)} inputs could not be predicted:\n"
            + "".join(f"  {failure.path}\n" for failure in failures)
        )
        sys.exit(INCOMPLETE)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "predict",
        "Predict the classes of all pixels of images and videos.",
        "How the network sees an image is set as for evaluation: "
        "--config.evaluation.FIELD=VALUE (scale, mode, window, stride, ratios, flip). "
        "Exit code 3: all is done but for inputs that cannot be read.",
        renamed=command.OVERWRITE,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image or video, folder (with all below), or pattern",
    )
    command.add_checkpoint(parser)
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="folder of the outputs"
    )
    parser.add_argument(
        "--format",
        default="labels,overlay",
        help="one or more of labels (PNG of ids with the colours as palette), overlay, "
        "side_by_side, probabilities (.npz), and for benchmark servers ade20k, "
        "cityscapes, voc, coco_stuff, loveda (default: labels,overlay)",
    )
    command.add_existing(parser, "skip")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="images at once (default: 8); another number rounds otherwise, which "
        "turns a pixel in a million where two classes are as good",
    )
    parser.add_argument(
        "--overlay_opacity",
        type=float,
        default=0.5,
        help="weight of the class colours in pictures, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--max_picture_side",
        type=int,
        default=4096,
        help="overlays of larger images are reduced to this, in pixels (default: 4096)",
    )
    parser.add_argument(
        "--probability_type",
        choices=("float16", "float32"),
        default="float16",
        help="type of the numbers in .npz files (default: float16)",
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
