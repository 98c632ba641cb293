"""A web page: `segnext-jax demo --checkpoint=runs/ade`.

Drop an image; see its classes over it, with names, shares and an opacity slider.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from segnext_jax.cli import command


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
    serve(predictor, options.host, options.port)


def serve(predictor: Any, host: str, port: int | None, block: bool = True) -> Any:
    """Serve the page of a network.

    Args:
      predictor: What `segnext_jax.load` returns.
      host: Address to listen at; "0.0.0.0" for other machines, too.
      port: Port to listen at; None: the first that is free from 7860.
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

    def show(image: Any) -> str:
        if image is None:
            return ""
        try:
            return result_page.result_html(predictor.predict(image))
        except ValueError as fault:
            raise gradio.Error(str(fault)) from fault

    with gradio.Blocks(title="SegNeXt", analytics_enabled=False) as page:
        gradio.Markdown(
            f"# SegNeXt\n{predictor.spec.num_classes} classes of "
            f"{predictor.spec.name}. Drop an image, or press Enter on the field to "
            "choose one."
        )
        image = gradio.Image(
            label="Image", sources=["upload", "clipboard"], elem_id="segnext-image"
        )
        result = gradio.HTML()
        image.change(show, image, result, show_progress="full")
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=not block,
            head=f"<script>{result_page.script()}</script>",
            css=result_page.style(),
            footer_links=[],
            quiet=not block,
        )
    except OSError as error:
        if port is None:
            raise
        raise ValueError(
            f"--port must be a free port of {host}: {port} is in use. Name another, or "
            "leave --port out."
        ) from error
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
        "--port", type=int, help="port to listen at (default: the first free from 7860)"
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
