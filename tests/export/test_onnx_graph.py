"""The ONNX graph in onnxruntime equals the network."""

import collections
import functools
import re

import jax
import numpy as np
import pytest

from segnext_jax.cli import command
from segnext_jax.export import onnx_graph
from segnext_jax.export.__main__ import main
from segnext_jax.export.program import Signature, make_reference
from segnext_jax.models.segnext import VARIANTS

# Megabytes: 4 bytes for each weight, and 1 % for nodes and names.
SIZES = {"tiny": 17.4, "small": 56.5, "base": 112, "large": 198}
KINDS = {
    *("Add", "ArgMax", "Cast", "Clip", "Concat", "Conv", "Div", "Erf", "Gather"),
    *("Identity", "InstanceNormalization", "LayerNormalization", "MatMul", "Mul"),
    *("Range", "Relu", "Reshape", "Resize", "Shape", "Slice", "Softmax", "Sub"),
    *("Transpose", "Unsqueeze"),
}


def photographs(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def counts(graph):
    return collections.Counter(node.op_type for node in graph.graph.node)


@pytest.fixture(scope="module")
def graph(network):
    signature = Signature(None, None, output="probabilities")
    return onnx_graph.convert(network, signature)


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 32, 64)])
def test_any_batch_and_size_gives_the_networks_probabilities(shape, graph, network):
    session = onnx_graph.Session(graph.SerializeToString())
    images = photographs(*shape)
    wanted = np.stack([network.predict(image).probabilities for image in images])
    np.testing.assert_allclose(session(images), wanted, rtol=0, atol=1e-5)


def test_convolutions_are_nodes_and_dimensions_have_names(graph):
    # Thirteen in each of two blocks, five of stride 2, six of seven in the head.
    assert counts(graph)["Conv"] == 2 * 13 + 5 + 6
    (value,) = graph.graph.input
    assert value.name == "images"
    assert dims(value) == ["batch", "height", "width", 3]
    (value,) = graph.graph.output
    assert value.name == "probabilities"
    assert dims(value) == ["batch", "height", "width", 11]
    assert graph.opset_import[0].version == 17


def test_normalised_images_give_the_networks_logits(network):
    signature = Signature((32, 64), 2, input="float", output="logits")
    graph = onnx_graph.convert(network, signature)
    images = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype(np.float32)
    logits = onnx_graph.Session(graph.SerializeToString())(images)
    wanted = np.concatenate([network.logits(image[None]) for image in images])
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def seen(full_width):
    """Return the function from a variant to network, images and probabilities."""
    images = photographs(1, 64, 96)

    @functools.cache
    def see(variant):
        network = full_width(variant)
        signature = Signature((64, 96), 1, output="probabilities")
        shares = make_reference(network, signature, dtype="float32")(images)
        return network, images, np.asarray(shares)

    return see


@pytest.mark.parametrize("size", [None, (64, 96)])
@pytest.mark.parametrize(
    "variant",
    ["tiny", *(pytest.param(v, marks=pytest.mark.slow) for v in SIZES if v != "tiny")],
)
def test_published_network_is_small_and_made_of_known_operations(variant, size, seen):
    network, images, shares = seen(variant)
    graph = onnx_graph.convert(network, Signature(size, 1))
    data = graph.SerializeToString()
    assert len(data) < SIZES[variant] * 1e6
    assert set(counts(graph)) == KINDS
    blocks = sum(VARIANTS[variant].depths)
    assert counts(graph)["Conv"] == 13 * blocks + 5 + 6
    assert counts(graph)["Erf"] == 2 * blocks + 1
    assert counts(graph)["Resize"] == 2
    weights = jax.tree.leaves(network.variables["params"])
    num_bytes = {weight.nbytes for weight in weights}
    for constant in graph.graph.initializer:
        array_bytes = 4 * np.prod(constant.dims)
        assert array_bytes < 1e6 or array_bytes in num_bytes | parts(network)

    labels = onnx_graph.Session(data)(images)
    assert labels.shape == (1, 64, 96) and labels.dtype == np.uint8
    assert len(np.unique(labels)) > 2
    # Random weights give a pixel of some thousands two labels of the same score.
    theirs = np.take_along_axis(shares, labels[..., None].astype(int), axis=3)
    np.testing.assert_allclose(theirs[..., 0], shares.max(-1), rtol=1e-4)
    assert np.mean(labels != shares.argmax(-1)) < 1e-3


# It forks when it is imported, which JAX warns of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:os.fork")
def test_openvino_gives_the_networks_labels(seen):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    network, images, shares = seen("tiny")
    graph = onnx_graph.convert(network, Signature(None, None))
    core = openvino.Core()
    # Where a CPU has bfloat16, that is its default.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(graph.SerializeToString())
    labels = core.compile_model(model, "CPU", options)(images)[0]
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, shares.argmax(-1))


def parts(network):
    """Return the bytes of the squeeze's kernel, which is used in three parts."""
    variant = network.model.variant
    return {4 * dim * variant.head_channels for dim in variant.embed_dims}


def test_program_tells_difference_and_times(checkpoint_dir, tmp_path, capsys):
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={tmp_path / 'new'}"]
    assert (
        command.run(main, [*arguments, "--format=onnx", "--batch=2", "--size=32x64"])
        == 0
    )
    output = capsys.readouterr().out
    assert re.search(r"model.onnx: 0\.\d MB, made in", output)
    assert "all of the labels are the network's, for images of 2x32x64" in output
    assert re.search(r"onnxruntime [\d.]+ ms on the CPU, jax [\d.]+ ms on cpu", output)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["metadata.json", "model.onnx"]
