"""ONNX: the network as a graph, and onnxruntime to run it."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from segnext_jax.export.eight_bits import to_int8
from segnext_jax.export.onnx_network import (
    add_encoder,
    add_head,
    best_of_enlarged,
    channels_last,
    enlarge_channels_last,
    per_channel,
)
from segnext_jax.export.onnx_nodes import Nodes, set_dims
from segnext_jax.export.program import (
    CERTAINTY_NAME,
    INPUT_NAME,
    LOGITS_STRIDE,
    Signature,
)
from segnext_jax.predict.predictor import Predictor

LIBRARIES = ("onnx", "onnxruntime")


def check_installed() -> None:
    """Refuse to begin without the libraries.

    Raises:
      ValueError: If a library is missing.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {' and '.join(LIBRARIES)}: {', '.join(missing)} is not "
            "installed. Run pip install 'segnext_jax[export]'."
        )


def convert(predictor: Predictor, signature: Signature, dtype: str = "float32") -> Any:
    """Return a network as ``onnx.ModelProto``.

    Args:
      predictor: The network.
      signature: What goes in and comes out.
      dtype: Type of weights and values. With float16 the normalisations, the
        decomposition and what is computed from the scores stay in float32.

    Raises:
      ValueError: If a library is missing.
    """
    check_installed()
    model = predictor.model
    # In float64, so that what is folded is rounded once.
    variables = jax.tree.map(
        lambda value: np.asarray(value, np.float64), predictor.variables
    )
    params, stats = variables["params"], variables["batch_stats"]
    (draw,) = jax.device_get(list(model.deterministic().draws().values()))

    nodes = Nodes(dtype)
    images = _add_input(nodes, predictor, signature)
    with nodes.scope("backbone"):
        features = add_encoder(
            *(nodes, images, params["backbone"], stats["backbone"]),
            model.variant.depths,
        )
    with nodes.scope("decode_head"):
        scores = add_head(
            *(nodes, features[1:], params["decode_head"], draw[0]),
            model.nmf_eval_steps,
        )
    dims = signature.output_dims(predictor.spec.num_classes)
    result = _add_output(nodes, scores, signature.output)
    outputs = {result: (signature.output, signature.output_dtype, dims)}
    if signature.has_certainty:
        certainty = _add_certainty(nodes, scores)
        dims = dataclasses.replace(signature, output="logits").output_dims(1)[:3]
        outputs[certainty] = (CERTAINTY_NAME, np.dtype(np.float32), dims)
    return nodes.model(
        (INPUT_NAME, signature.input_dtype, signature.input_dims()), outputs
    )


def convert_to_int8(
    predictor: Predictor, signature: Signature, photographs: Sequence[np.ndarray]
) -> Any:
    """Return a network whose convolutions have eight bits; see `eight_bits.to_int8`.

    Args:
      predictor: The network.
      signature: What goes in and comes out.
      photographs: RGB bytes [1, height, width, 3] of any sizes that it takes.

    Raises:
      ValueError: If a library is missing, or ONNX lacks an operation.
    """
    # Whatever the size, and with no more than one image in memory.
    of_any_size = dataclasses.replace(signature, size=None, batch=None)
    data = predictor.config.data
    inputs = [signature.images_of(p, data.mean, data.std) for p in photographs]
    model = to_int8(convert(predictor, of_any_size), inputs)
    num_classes = predictor.spec.num_classes
    set_dims(model.graph.input[0], signature.input_dims())
    set_dims(model.graph.output[0], signature.output_dims(num_classes))
    return model


def _add_input(nodes: Nodes, predictor: Predictor, signature: Signature) -> str:
    """Add normalisation; return [batch, 3, height, width]."""
    # Before all else: engines are slow in arithmetic on rows of three.
    images = nodes.add("Transpose", INPUT_NAME, perm=[0, 3, 1, 2])
    if signature.input == "uint8":
        from onnx import TensorProto

        data = predictor.config.data
        with nodes.in_float32():
            images = nodes.add("Cast", images, to=TensorProto.FLOAT)
            images = nodes.add("Sub", images, per_channel(np.array(data.mean)))
            images = nodes.add("Div", images, per_channel(np.array(data.std)))
    return nodes.cast(images)


def _add_output(nodes: Nodes, scores: str, output: str) -> str:
    with nodes.in_float32():
        scores = nodes.cast(scores)
        if output == "logits":
            return channels_last(nodes, scores)
        if output == "labels":
            return best_of_enlarged(nodes, scores, LOGITS_STRIDE)
        scores = enlarge_channels_last(nodes, scores, LOGITS_STRIDE)
        return nodes.add("Softmax", scores, axis=-1)


def _add_certainty(nodes: Nodes, scores: str) -> str:
    """Add the probability of the best class at 1/8 of the size: enough to be read."""
    with nodes.in_float32():
        shares = nodes.add("Softmax", nodes.cast(scores), axis=1)
        return nodes.add("ReduceMax", shares, axes=[1], keepdims=0)


class Session:
    """A graph in onnxruntime on the CPU: call it with images."""

    def __init__(self, data: bytes, num_threads: int = 0):
        """Load a serialized graph.

        Args:
          data: The graph.
          num_threads: At work in one operation; 0: one for each core.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        # Errors alone: what it optimises away is not the user's concern.
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the graph's first output."""
        return np.asarray(self._session.run(None, {INPUT_NAME: images})[0])
