"""The ONNX graph in onnxruntime equals the network; needs the extra `[export]`.

The extra is no part of `[test]`: jax2onnx holds orbax back, and the tests are to run
with what users have.
"""

import collections
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.cli import command
from segnext_jax.export import onnx_graph
from segnext_jax.export.__main__ import main
from segnext_jax.export.program import Signature, make_function

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in onnx_graph.LIBRARIES),
        reason="needs the extra [export]: jax2onnx, onnx, onnxruntime",
    ),
    # Of the libraries; ours are errors in all other tests.
    pytest.mark.filterwarnings("ignore"),
]


def photographs(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def graph(network):
    signature = Signature(None, None, output="probabilities")
    function = make_function(
        network, signature, dtype="float32", implementation="grouped"
    )
    return onnx_graph.convert(function, signature, num_classes=11)


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 32, 64)])
def test_any_batch_and_size_gives_the_networks_probabilities(shape, graph, network):
    session = onnx_graph.Session(graph.SerializeToString())
    images = photographs(*shape)
    wanted = np.stack([network.predict(image).probabilities for image in images])
    np.testing.assert_allclose(session(images), wanted, rtol=0, atol=1e-5)


def test_convolutions_are_nodes_and_dimensions_have_names(graph):
    counts = collections.Counter(node.op_type for node in graph.graph.node)
    # Eight depthwise ones in each of four blocks, and five of stride 2.
    assert counts["Conv"] == 4 * 8 + 5
    assert not {name for name in counts if "Random" in name}
    (value,) = graph.graph.input
    assert value.name == "images"
    assert dims(value) == ["batch", "height", "width", 3]
    (value,) = graph.graph.output
    assert value.name == "probabilities"
    assert dims(value) == ["batch", "height", "width", 11]
    assert graph.opset_import[0].version == 17


def test_operation_that_onnx_lacks_is_named():
    signature = Signature((32, 32), None)

    def function(images):
        return jax.lax.linalg.cholesky(images[..., 0].astype(jnp.float32))

    with pytest.raises(ValueError, match="says that cholesky .*--format=stablehlo"):
        onnx_graph.convert(function, signature, num_classes=11)


def test_program_tells_difference_and_times(checkpoint_dir, tmp_path, capsys):
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={tmp_path / 'new'}"]
    assert command.run(main, [*arguments, "--format=onnx", "--size=32x32"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"model.onnx: 0\.\d MB, made in", output)
    assert re.search(
        r"share of labels unlike the network's [\d.e-]+ \(1x32x32\)", output
    )
    assert re.search(r"onnxruntime [\d.]+ ms on the CPU, jax [\d.]+ ms on cpu", output)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["metadata.json", "model.onnx"]
