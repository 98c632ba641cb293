"""A web page: `segnext-jax demo --checkpoint=runs/ade`.

Drop an image; see its classes over it, with names, shares and an opacity slider.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from segnext_jax.cli import command
from segnext_jax.datasets.resolve import FOLDER

# How often uploads are looked through, and how old they may grow.
_DELETION_SECONDS = (300, 900)


def main(arguments: Sequence[str]) -> None:
    """Serve the page until interrupted; see `--help`.

    Raises:
      ValueError: If Gradio is not installed, or the network cannot be loaded.
    """
    options, overrides = _parse(arguments)
    command.set_up_compilation_cache()
    # Gradio reports the use of its components to its makers unless told not to.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from segnext_jax.predict.predictor import load

    command.set_up_logging()
    predictor = load(options.checkpoint, options.dataset, overrides, options.which)
    serve(predictor, options.host, options.port, options.max_upload_mb)


def serve(
    predictor: Any,
    host: str,
    port: int | None,
    max_upload_mb: int = 50,
    block: bool = True,
) -> Any:
    """Serve the page of a network.

    Uploads lie in a temporary folder of Gradio's, and are deleted after a quarter of an
    hour, and when the server ends.

    Args:
      predictor: What `segnext_jax.load` returns.
      host: Address to listen at; "0.0.0.0" for other machines, too.
      port: Port to listen at; None: the first that is free from 7860.
      max_upload_mb: Size of the largest file that is taken, in megabytes.
      block: Whether to return only when interrupted.

    Returns:
      The `gradio.Blocks`, whose `local_url` is the address.

    Raises:
      ValueError: If Gradio is not installed, or the port is in use.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            "the web page needs Gradio: pip install 'segnext_jax[demo]'."
        ) from error
    from segnext_jax.demo import result_page

    def show(path: str | None) -> str:
        return result_page.answer(predictor, path)

    spec = predictor.spec
    of = "" if spec.name == FOLDER else f" of {spec.name}"
    with gradio.Blocks(
        title="SegNeXt", analytics_enabled=False, delete_cache=_DELETION_SECONDS
    ) as page:
        gradio.Markdown(
            f"# SegNeXt\n{spec.num_classes} classes{of}. Drop or choose an image. The "
            "first of a size takes longer: the network is compiled for it."
        )
        image = gradio.Image(
            label="Image", sources=["upload", "clipboard"], elem_id="segnext-image"
        )
        # The predictor reads the file, not Gradio: it says what is wrong. (No subclass:
        # Gradio writes a file beside the source of each.)
        image.preprocess = lambda payload: payload and payload.path
        result = gradio.HTML()
        image.change(show, image, result, show_progress="full")
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            max_file_size=f"{max_upload_mb}mb",
            head=f"<script>{result_page.script()}</script>",
            css=result_page.style(),
            footer_links=[],
            quiet=True,
        )
    except OSError as error:
        if port is None:
            raise
        raise ValueError(
            f"--port={port} must be free, and is not on {host}. Choose another, or "
            "leave it out."
        ) from error
    if block:
        logging.info("The page is at %s (Ctrl-C ends it).", page.local_url)
        page.block_thread()
    return page


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "demo",
        "Show in a web page what a network sees in an image.",
        "How the network sees an image is set as for evaluation: "
        "--config.evaluation.FIELD=VALUE.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a run's workdir, a converted folder, or a PyTorch checkpoint",
    )
    command.add_which(parser)
    parser.add_argument(
        "--dataset", help="data set whose classes a PyTorch checkpoint knows"
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
