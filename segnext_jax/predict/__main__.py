"""Predict: `segnext-jax predict --checkpoint=runs/ade photos --output=out`.

Inputs are image files, folders, patterns, videos, and lists of such files. Each format
has its own folder below the output: `out/labels/<name>.png`, `out/overlay/<name>.jpg`,
... With ``--container=tar`` all are in `out/tar/`.

Exit codes: 0: all inputs are predicted. 1: no input is predicted, or an error ended the
command. 2: the command line is wrong. 3: some inputs cannot be read, and the command
names them; all others are predicted.
"""

import argparse
import sys
import typing
from collections.abc import Sequence

from segnext_jax.cli import command, processes, storage

if typing.TYPE_CHECKING:
    from segnext_jax.predict.run import Summary

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
    command.set_up_logging()
    joining = processes.ProcessOptions.of(given)
    with processes.joined(joining):
        summary = _predict(given, overrides, joining.has_others)
        processes.wait_for_others()
    if summary.num_failures:
        more = summary.num_failures - len(summary.failures)
        sys.stderr.write(
            f"{summary.num_failures} of {summary.num_inputs} inputs could not be "
            "predicted:\n"
            + "".join(f"  {failure.path}\n" for failure in summary.failures)
            + (f"  and {more} more: see the log\n" if more else "")
        )
        sys.exit(INCOMPLETE)


def _predict(
    given: argparse.Namespace, overrides: list[str], is_joined: bool
) -> "Summary":
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
        container=given.container,
        shard=_shard(given.shard, is_joined),
        is_list=given.list is not None,
        part_size=given.part_size,
    )
    if given.list is None:
        found = inputs.find_inputs(given.inputs, options.folders)
    else:
        found = inputs.read_list(given.list)
    import jax

    from segnext_jax.predict.predictor import load
    from segnext_jax.predict.run import run

    # The command itself names the broken files, so OpenCV need not.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    predictor = load(
        *(given.checkpoint, given.dataset, overrides, given.which),
        devices=jax.local_devices(),
    )
    parts = jobs.plan(found, options, predictor.spec)
    return run(predictor, parts if options.is_list else list(parts), options)


def _shard(text: str | None, is_joined: bool) -> tuple[int, int]:
    """Return (number, count) of ``I/N``, or of the processes that are joined."""
    if text is None and not is_joined:
        return 0, 1
    if text is None:
        import jax

        return jax.process_index(), jax.process_count()
    number, _, count = text.partition("/")
    if is_joined or not (number.isdecimal() and count.isdecimal()):
        raise ValueError(
            "--shard must be I/N, without --distributed or --coordinator, which tell "
            f"it: got {text!r}."
        )
    return int(number), int(count)


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
        nargs="*",
        metavar="INPUT",
        help="image or video, folder (with all below), or pattern",
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="file that names the inputs, one a line, however many; - for standard "
        "input",
    )
    command.add_checkpoint(parser)
    parser.add_argument(
        "--output", type=storage.as_path, required=True, help="folder of the outputs"
    )
    parser.add_argument(
        "--format",
        default="labels,overlay",
        help="one or more of labels (PNG of ids with the colours as palette), overlay, "
        "side_by_side, probabilities (.npz), table (Parquet: pixels of each class, "
        "errors), and for benchmark servers ade20k, cityscapes, voc, coco_stuff, "
        "loveda (default: labels,overlay)",
    )
    parser.add_argument(
        "--container",
        choices=("files", "tar"),
        default="files",
        help="a file for each output, or tars with the names of WebDataset (default: "
        "files)",
    )
    command.add_existing(parser, "skip")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="images at once on each device (default: 8); another number "
        "rounds otherwise, which turns a pixel in a million where two classes are as "
        "good",
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
    parser.add_argument(
        "--shard", metavar="I/N", help="every N-th input from number I on, from 0"
    )
    parser.add_argument(
        "--part_size",
        type=int,
        default=1_000,
        help="inputs of a list or shard that are checked, and of a tar or table that "
        "are written, together (default: 1000)",
    )
    processes.add_options(parser)
    options, rest = parser.parse_known_args(arguments)
    if (options.list is None) == (not options.inputs):
        parser.error("name the inputs as arguments or by --list, not by both")
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
