"""ONNX, by jax2onnx, and onnxruntime to run it."""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from segnext_jax.export.program import INPUT_NAME, Function, Signature

FILE = "model.onnx"
# The oldest set that has all that is needed: the most runtimes know it. GELU is written
# by erf, and onnxruntime joins it again.
OPSET = 17
LIBRARIES = ("jax2onnx", "onnx", "onnxruntime")


def check_installed() -> None:
    """Refuse to begin without the libraries.

    Raises:
      ValueError: If one is missing.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {', '.join(LIBRARIES)}: {', '.join(missing)} is not "
            "installed. Run pip install 'segnext_jax[export]'."
        )


def convert(function: Function, signature: Signature, num_classes: int) -> Any:
    """Return a function as ``onnx.ModelProto``, with dimensions that bear names.

    Args:
      function: Its depthwise convolutions should be grouped ones, which become nodes
        ``Conv``.
      signature: What goes in and comes out.
      num_classes: Number of train ids.

    Raises:
      ValueError: If a library is missing, or cannot write an operation.
    """
    check_installed()
    import jax2onnx

    # jax2onnx adds biases to maps without saying along which dimension.
    with _without_notes(), jax.numpy_rank_promotion("allow"):
        try:
            model = jax2onnx.to_onnx(
                function,
                inputs=[signature.input_spec()],
                model_name="segnext",
                opset=OPSET,
                input_names=[INPUT_NAME],
                output_names=[signature.output],
            )
        except NotImplementedError as error:
            reason = str(error).rstrip(".")
            raise ValueError(
                "ONNX must have all operations of the network as it is asked for: "
                f"jax2onnx says that {reason}. Fix --size and --batch, or use "
                "--format=stablehlo."
            ) from error
    _name_dims(model.graph.input[0], signature.input_dims())
    _name_dims(model.graph.output[0], signature.output_dims(num_classes))
    return model


class Session:
    """A graph in onnxruntime on the CPU: call it with images."""

    def __init__(self, data: bytes):
        """Load a serialized graph."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Errors alone: what it optimises away is not the user's concern.
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the graph's output."""
        return np.asarray(self._session.run(None, {INPUT_NAME: images})[0])


def _name_dims(value: Any, dims: tuple[int | str, ...]) -> None:
    """Give the unknown dimensions of an input or output readable names."""
    for dim, name in zip(value.type.tensor_type.shape.dim, dims, strict=True):
        if isinstance(name, str):
            dim.dim_param = name


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Silence onnx_ir, which tells of each intermediate shape that it leaves out."""
    logger = logging.getLogger("onnx_ir.serde")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
