"""Export a network: `segnext-jax export --checkpoint=PATH --output=DIR`.

    segnext-jax export --checkpoint=runs/ade --output=exported --format=onnx
    segnext-jax export --checkpoint=runs/ade --output=site --format=web
    segnext-jax export --checkpoint=runs/ade --output=exported --dynamic \
        --batch_size=dynamic --format=stablehlo,onnx

Each file is run on this machine, where it can be, and compared with the network itself.
"""

import argparse
import sys
from collections.abc import Sequence

from segnext_jax.cli import command, storage
from segnext_jax.export.options import (
    DTYPES,
    INPUTS,
    OUTPUTS,
    PLATFORMS,
    PRECISIONS,
    SIZE_MULTIPLE,
)

WEB = "web"


def main(arguments: Sequence[str]) -> None:
    """Export one network; see `--help`.

    Raises:
      ValueError: If the network cannot be exported.
    """
    options, overrides = _parse(arguments)
    from segnext_jax.export import folder, onnx_graph, web_page
    from segnext_jax.export.calibration import read_photographs
    from segnext_jax.export.default_size import default_size
    from segnext_jax.export.program import Signature
    from segnext_jax.predict import predictor

    command.set_up_logging()
    formats = _among("--format", options.format, (*folder.FORMATS, WEB))
    has_page = WEB in formats
    if has_page:
        given = options.input, options.result, options.batch_size
        if given != ("uint8", "labels", "1"):
            raise ValueError(
                "the page of --format=web needs --input=uint8, --result=labels and "
                "--batch_size=1: leave them out."
            )
        # The web page runs the ONNX file, on photographs of any size.
        formats = [*(f for f in formats if f not in (WEB, "onnx")), "onnx"]
        options.dynamic = options.size is None
    platforms = _among("--platforms", options.platforms, PLATFORMS)
    target = storage.as_path(options.output)
    overwrite = options.existing == "overwrite"
    folder.check_target(target, overwrite)
    if "onnx" in formats:
        onnx_graph.check_installed()
    runtime = web_page.fetch_runtime() if has_page else None
    batch = None if options.batch_size == "dynamic" else _count(options.batch_size)
    size = None
    if options.size is not None:
        size = command.parse_size(options.size, "--size", SIZE_MULTIPLE)
    # Refused before the weights are read.
    Signature(size, batch)

    network = predictor.load(
        options.checkpoint, options.dataset, overrides, options.which
    )
    config = network.config
    if size is None and not options.dynamic:
        size, origin = default_size(config, network.spec, SIZE_MULTIPLE)
        _tell(f"size: {size[0]}x{size[1]}, {origin} (--size or --dynamic for another)")
    signature = Signature(size, batch, options.input, options.result, has_page)
    dtype = options.dtype or config.model.dtype
    if "onnx" in formats and dtype != "float32":
        raise ValueError(
            "ONNX is written in float32, as onnxruntime has no bfloat16 convolutions "
            f"on CPUs: the activations are {dtype}. Pass --dtype=float32, or "
            "--precision=float16 for a smaller file."
        )
    photographs = []
    if "onnx" in formats and options.precision == "int8":
        photographs = read_photographs(network, options.calibration, size)
        _tell(f"calibration: {len(photographs)} photographs")
    if config.model.nmf_eval_bases != "fixed":
        _tell(
            "bases: fixed in what is exported, by config.model.nmf_eval_seed; the "
            "network's configuration draws them anew for each image"
        )
    folder.write(
        target,
        network,
        signature,
        formats=formats,
        platforms=platforms,
        dtype=dtype,
        checkpoint=options.checkpoint,
        tell=_tell,
        precision=options.precision,
        photographs=photographs,
        runtime=runtime,
        overwrite=overwrite,
    )
    _tell(f"wrote {target}")
    if has_page:
        _tell(f"to see the page: python -m http.server --directory {target} 8000")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    renamed = command.OVERWRITE | {"--batch": "--batch_size"}
    if any(text.partition("=")[0] == "--to" for text in arguments):
        # Earlier versions wrote --to for the folder, and --output for the result.
        renamed |= {"--to": "--output", "--output": "--result"}
    parser = command.Parser(
        "export",
        "Write a network as StableHLO and ONNX, with its metadata.",
        "Fields of the configuration that change a prediction are options, too: "
        "--config.evaluation.mode=slide, --config.model.nmf_eval_seed=1.",
        renamed,
    )
    command.add_checkpoint(parser)
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument(
        "--format",
        default="stablehlo",
        help="stablehlo, onnx, web (onnx with a page that runs it in a browser), or "
        "several: stablehlo,onnx (default: %(default)s)",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size",
        help="HEIGHTxWIDTH of the images in pixels, or one side of squares; multiples "
        "of 32 (default: what evaluation makes of the data set's usual photograph)",
    )
    sizes.add_argument(
        "--dynamic", action="store_true", help="any height and width, multiples of 32"
    )
    parser.add_argument(
        "--batch_size", default="1", help="number of images, or dynamic (default: 1)"
    )
    parser.add_argument(
        "--input",
        choices=INPUTS,
        default="uint8",
        help="RGB bytes, normalised inside, or normalised float (default: %(default)s)",
    )
    parser.add_argument(
        "--result",
        choices=OUTPUTS,
        default="labels",
        help="what comes out of each pixel; logits: at 1/8 of the size (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--platforms",
        default=",".join(PLATFORMS),
        help="that the StableHLO program runs on (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of activations (default: the configuration's)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of ONNX; normalisations and decomposition stay in float32 (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--calibration",
        nargs="+",
        default=(),
        metavar="PHOTOGRAPHS",
        help="files, folders or patterns that --precision=int8 is fitted to (default: "
        "the network's validation images)",
    )
    command.add_existing(parser)
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


def _among(name: str, text: str, known: Sequence[str]) -> list[str]:
    values = text.split(",")
    if any(value not in known for value in values):
        raise ValueError(
            f"{name} must be among {', '.join(known)}, joined by commas: got {text!r}."
        )
    return values


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(
            f"--batch_size must be a number of images, or dynamic: got {text}."
        )
    return int(text)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
