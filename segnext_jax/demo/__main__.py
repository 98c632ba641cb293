"""A web page: `segnext-jax demo --checkpoint=runs/ade`.

Drop a photograph; see its classes beside it, with names, probabilities and shares.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax.cli import command

NUM_EXAMPLES = 6


def main(arguments: Sequence[str]) -> None:
    """Serve the page until interrupted; see `--help`.

    Raises:
      ValueError: If the network cannot be loaded, or the port is in use.
    """
    options, overrides = _parse(arguments)
    command.set_up_compilation_cache()
    from absl import logging

    from segnext_jax.demo.server import Server
    from segnext_jax.predict import photographs
    from segnext_jax.predict.predictor import load

    command.set_up_logging()
    predictor = load(options.checkpoint, options.dataset, overrides, options.which)
    if options.examples:
        found = photographs.named_photographs(options.examples, NUM_EXAMPLES)
    else:
        try:
            found = photographs.validation_photographs(
                predictor.config, predictor.spec, NUM_EXAMPLES
            )
        except (OSError, ValueError):  # Most machines have no data set of a network.
            found = {}
    with Server(
        predictor,
        options.checkpoint,
        host=options.host,
        port=options.port,
        examples={pathlib.PurePath(name).name: data for name, data in found.items()},
        max_upload_mb=options.max_upload_mb,
    ) as server:
        logging.info("The page is at %s (Ctrl-C ends it).", server.address)
        server.serve_forever()


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "demo",
        "Show in a web page what a network sees in a photograph.",
        "How the network sees a photograph is set as for evaluation: "
        "--config.evaluation.FIELD=VALUE. Photographs stay in memory, and go nowhere "
        "else.",
    )
    command.add_checkpoint(parser)
    parser.add_argument(
        "--examples",
        nargs="+",
        default=(),
        metavar="PHOTOGRAPHS",
        help="files, folders or patterns to try on the page (default: some of the "
        "run's validation images, where they are)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 for other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--max_upload_mb",
        type=int,
        default=50,
        help="largest file that is taken, in megabytes (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, help="port to listen at (default: the first free from 7860)"
    )
    options, rest = parser.parse_known_args(arguments)
    if options.max_upload_mb < 1:
        parser.error(f"--max_upload_mb must be at least 1: got {options.max_upload_mb}")
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
