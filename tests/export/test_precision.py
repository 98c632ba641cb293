"""ONNX files of fewer bits, and the photographs that eight bits are fitted to."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from segnext_jax.cli import command
from segnext_jax.export import onnx_file, onnx_graph
from segnext_jax.export.__main__ import main
from segnext_jax.export.calibration import NUM_PHOTOGRAPHS, read_photographs
from segnext_jax.export.program import Signature

NORMS = ("LayerNormalization", "InstanceNormalization")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Smooth pictures of 40x60, one more than are taken."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for index in range(NUM_PHOTOGRAPHS + 1):
        noise = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
        noise.resize((60, 40)).save(folder / f"{index:02}.png")
    return folder


def constants(model):
    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def run(model, images):
    return onnx_graph.Session(model.SerializeToString())(images)


def test_float16_leaves_norms_and_decomposition_in_float32(network):
    signature = Signature(None, None, output="logits")
    exact = onnx_graph.convert(network, signature)
    model = onnx_graph.convert(network, signature, "float16")
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    arrays = constants(model)
    for node in model.graph.node:
        of_weights = {arrays[name].dtype for name in node.input if name in arrays}
        if node.op_type == "Conv":
            assert of_weights == {np.dtype(np.float16)}
        if node.op_type in NORMS or "/nmf/" in node.name:
            assert types[node.output[0]] == onnx.TensorProto.FLOAT
            assert np.dtype(np.float16) not in of_weights
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), np.uint8)
    wanted, given = run(exact, images), run(model, images)
    assert given.dtype == np.float32
    difference = np.abs(given - wanted).max()
    # 11 bits, some hundred times rounded; not 24.
    assert 1e-5 < difference / np.abs(wanted).max() < 2e-2


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_int8_has_convolutions_of_eight_bits_alone(size, network, photographs):
    signature = Signature(size, 2, output="logits")
    pictures = read_photographs(network, [str(photographs)], size)[:4]
    model = onnx_graph.convert_to_int8(network, signature, pictures)
    onnx.checker.check_model(model, full_check=True)
    arrays = constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        origins = [makers[name].op_type for name in node.input if name in makers]
        if node.op_type == "Conv":
            weight = makers[node.input[1]]
            assert arrays[weight.input[0]].dtype == np.int8
            assert origins[:2] == ["DequantizeLinear"] * 2
        if node.op_type == "MatMul":
            assert "DequantizeLinear" not in origins
    dims = model.graph.input[0].type.tensor_type.shape.dim
    sides = [dim.dim_param or dim.dim_value for dim in dims]
    assert sides == [2, *(size or ("height", "width")), 3]
    images = np.concatenate([pictures[0]] * 2)
    wanted = run(onnx_graph.convert(network, signature), images)
    # Random weights are no network that was trained to be sure.
    given = run(model, images)
    assert 0.8 < np.corrcoef(given.ravel(), wanted.ravel())[0, 1] < 0.9999


def test_photographs_are_spread_and_fitted(network, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # No CamVid is prepared there.
    pictures = read_photographs(network, [str(photographs)], None)
    assert [picture.shape for picture in pictures] == [(1, 64, 64, 3)] * NUM_PHOTOGRAPHS
    (picture,) = read_photographs(network, [str(photographs / "32.png")], (96, 32))
    assert picture.shape == (1, 96, 32, 3)
    with pytest.raises(ValueError, match="validation split.*--calibration=FOLDER"):
        read_photographs(network, [], None)


def test_program_writes_and_tells_eight_bits(
    checkpoint_dir, photographs, tmp_path, capsys, monkeypatch
):
    # Of random weights more than half of the labels may change.
    monkeypatch.setitem(onnx_file.TOLERANCES, "int8", 1.0)
    target = tmp_path / "new"
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={target}", "--format=onnx"]
    options = ["--batch=2", "--size=32x64", "--precision=int8"]
    options += ["--calibration", str(photographs)]
    assert command.run(main, [*arguments, *options]) == 0
    output = capsys.readouterr().out
    assert f"calibration: {NUM_PHOTOGRAPHS} photographs" in output
    assert "of the labels are float32's, for images of 8 of 2x32x64" in output
    metadata = json.loads((target / "metadata.json").read_text())
    assert metadata["files"]["onnx"]["precision"] == "int8"
