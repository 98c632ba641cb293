"""The ONNX file: written in a precision, compared, timed."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from segnext_jax.export import onnx_graph
from segnext_jax.export.comparison import (
    NUM_TIMED,
    Comparison,
    Tell,
    median_ms,
    tell_file,
)
from segnext_jax.export.onnx_nodes import OPSET
from segnext_jax.export.program import Signature
from segnext_jax.predict.predictor import Predictor

FILE = "model.onnx"
# What may differ from float32. Of a network that does not stand fewer bits, nan or
# noise comes out.
TOLERANCES = {"float16": 0.05, "int8": 0.5}
NUM_COMPARED = 8


def write(
    folder: pathlib.Path,
    predictor: Predictor,
    signature: Signature,
    precision: str,
    photographs: Sequence[np.ndarray],
    comparison: Comparison,
    tell: Tell,
) -> dict[str, Any]:
    """Write the file and return its entry in the metadata.

    In float32 the graph must equal the network. One of fewer bits is compared with
    that one: of eight on photographs, which it is made for.

    Args:
      folder: Where to.
      predictor: The network.
      signature: What goes in and comes out.
      precision: Among `PRECISIONS`.
      photographs: RGB bytes [1, height, width, 3], of the signature's size if that is
        fixed; needed for int8 alone.
      comparison: With the network.
      tell: Takes lines for the user.

    Raises:
      ValueError: If a library is missing, ONNX lacks an operation, or the graph does
        not compute what the network does.
    """
    start = time.perf_counter()
    model = onnx_graph.convert(predictor, signature)
    session = onnx_graph.Session(model.SerializeToString())
    difference = comparison.difference(session)
    images, whose = comparison.images, "the network"
    if precision != "float32":
        if precision == "float16":
            model = onnx_graph.convert(predictor, signature, precision)
        else:
            model = onnx_graph.convert_to_int8(predictor, signature, photographs)
            images = _as_inputs(photographs[:NUM_COMPARED], predictor, signature)
        reference, whose = session, "float32"
        session = onnx_graph.Session(model.SerializeToString())
        is_label = signature.output == "labels"
        reduced = Comparison(
            reference, images, is_label=is_label, tolerance=TOLERANCES[precision]
        )
        difference = reduced.difference(session)
        comparison = reduced
    path = folder / FILE
    path.write_bytes(model.SerializeToString())
    tell_file(tell, path, time.perf_counter() - start)
    tell(f"  {comparison.tell(difference, whose)}")
    other = "jax" if precision == "float32" else "float32"
    tell(
        f"  onnxruntime {median_ms(session, images[0]):.1f} ms on the CPU, {other} "
        f"{median_ms(comparison.reference, images[0]):.1f} ms on "
        f"{jax.default_backend()}: medians of {NUM_TIMED} calls"
    )
    entry = {"file": FILE, "opset": OPSET, "precision": precision}
    return entry | comparison.describe(difference)


def _as_inputs(
    photographs: Sequence[np.ndarray], predictor: Predictor, signature: Signature
) -> list[np.ndarray]:
    data = predictor.config.data
    return [
        np.repeat(
            signature.images_of(photograph, data.mean, data.std),
            signature.batch or 1,
            axis=0,
        )
        for photograph in photographs
    ]
