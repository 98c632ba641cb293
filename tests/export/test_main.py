"""The program: the folder that it writes, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from segnext_jax import __version__, export
from segnext_jax.cli import command
from segnext_jax.export import onnx_graph, stablehlo
from segnext_jax.export.__main__ import main


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = command.run(main, [str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def fails(capsys, *arguments) -> str:
    """Expect an error of one line, return it."""
    code, _, error = run(capsys, *arguments)
    assert code == 1
    assert error.startswith("error: ") and len(error.strip().splitlines()) == 1
    return error


@pytest.fixture(scope="module")
def exported(checkpoint_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exports") / "new" / "network"
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={path}"]
    assert command.run(main, [*arguments, "--batch=2", "--size=32x64"]) == 0
    return path


def test_folder_holds_program_metadata_and_loader(exported, checkpoint_dir, network):
    names = sorted(path.name for path in exported.iterdir())
    assert names == ["load_exported.py", "metadata.json", "model.stablehlo"]
    assert [path.name for path in exported.parent.iterdir()] == ["network"]
    metadata = json.loads((exported / "metadata.json").read_text())
    assert metadata["network"] == {
        "name": "SegNeXt",
        "variant": "tiny",
        "checkpoint": str(checkpoint_dir),
        "step": None,
        "mIoU": None,
        "decomposition": "nmf",
        "decomposition_steps": 7,
        "bases": "fixed: drawn once, by seed 0",
        "activations": "float32",
    }
    assert metadata["versions"]["segnext_jax"] == __version__
    assert metadata["classes"] == list(network.classes)
    assert metadata["colours"][0] == [128, 128, 128]
    assert metadata["ignore_label"] == 255
    assert metadata["input"]["shape"] == [2, 32, 64, 3]
    assert metadata["input"]["dtype"] == "uint8"
    assert metadata["input"]["normalisation"]["mean"] == [123.675, 116.28, 103.53]
    assert metadata["input"]["normalisation"]["inside"] is True
    assert metadata["resize"]["fit_into"] is None
    assert metadata["resize"]["multiple_of"] == 32
    assert metadata["output"]["shape"] == [2, 32, 64]
    assert metadata["output"]["dtype"] == "uint8"
    stablehlo = metadata["files"]["stablehlo"]
    assert stablehlo["platforms"] == ["cpu", "cuda", "tpu"]
    assert stablehlo["compared_on"] == [[2, 32, 64, 3]]
    assert stablehlo["share_of_other_labels"] < 1e-3


def test_jax_alone_runs_the_folder(exported, network, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 64, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    program = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert not {'segnext_jax', 'flax', 'optax', 'orbax'} & set(sys.modules)\n"
    )
    files = [exported / "load_exported.py", "images.npy", "labels.npy"]
    subprocess.run([sys.executable, "-c", program, *files], cwd=tmp_path, check=True)
    labels = np.load(tmp_path / "labels.npy")
    wanted = np.stack([network.predict(image).labels for image in images])
    assert labels.shape == wanted.shape and labels.dtype == np.uint8
    assert np.mean(labels != wanted) < 1e-3

    function, metadata = export.load(exported)
    assert metadata["dataset"] == "camvid"
    np.testing.assert_array_equal(function(images), labels)


@pytest.mark.slow
def test_files_are_compared_at_two_sizes_where_these_are_open(
    checkpoint_dir, tmp_path, capsys
):
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={tmp_path / 'new'}"]
    options = ["--dynamic", "--batch=dynamic", "--output=logits", "--platforms=cpu"]
    code, output, _ = run(capsys, *arguments, *options)
    assert code == 0
    assert "for images of 1x32x64 and 2x96x160" in output
    metadata = json.loads((tmp_path / "new" / "metadata.json").read_text())
    assert metadata["files"]["stablehlo"]["largest_difference"] < 1e-4
    assert metadata["output"]["shape"] == ["batch", "height/8", "width/8", 11]


def test_platform_that_is_not_here_is_said_to_be_untested(
    checkpoint_dir, tmp_path, capsys
):
    arguments = [f"--checkpoint={checkpoint_dir}", f"--to={tmp_path / 'new'}"]
    code, output, _ = run(capsys, *arguments, "--platforms=tpu", "--size=32")
    assert code == 0
    assert "not compared: exported for tpu, none of them here" in output
    metadata = json.loads((tmp_path / "new" / "metadata.json").read_text())
    assert metadata["files"]["stablehlo"]["platforms"] == ["tpu"]
    assert "compared_on" not in metadata["files"]["stablehlo"]


@pytest.mark.parametrize(
    "option, message",
    [
        ("--size=100x64", "multiples of 32: got '100x64'. Use --size=128x64."),
        ("--size=500", "multiples of 32: got '500'. Use --size=512x512."),
        ("--size=few", "HEIGHTxWIDTH.*got 'few'. Use --size=512x512."),
        (
            "--batch=few",
            "--batch_size must be a number of images, or dynamic: got few.",
        ),
        ("--format=tflite", "--format must be among stablehlo, onnx.*got 'tflite'."),
        ("--platforms=cpu,gpu", "--platforms must be among cpu, cuda, tpu"),
    ],
)
def test_impossible_option_is_refused(option, message, capsys, tmp_path):
    # Before the checkpoint is looked for.
    error = fails(capsys, "--checkpoint=nothing", f"--to={tmp_path / 'new'}", option)
    assert re.search(message, error)


def test_missing_checkpoint_is_refused(capsys, tmp_path):
    error = fails(capsys, "--checkpoint=nothing", f"--to={tmp_path / 'new'}")
    assert "the network to load must exist: nothing does not." in error


def test_missing_libraries_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "LIBRARIES", ("onnx_of_tomorrow",))
    options = ("--checkpoint=nothing", f"--to={tmp_path / 'new'}", "--format=onnx")
    error = fails(capsys, *options)
    assert "onnx_of_tomorrow is not installed" in error
    assert "pip install 'segnext_jax[export]'" in error


def test_onnx_in_bfloat16_is_refused(capsys, tmp_path, checkpoint_dir, monkeypatch):
    monkeypatch.setattr(onnx_graph, "LIBRARIES", ())
    arguments = (f"--checkpoint={checkpoint_dir}", f"--to={tmp_path / 'new'}")
    error = fails(capsys, *arguments, "--format=onnx", "--dtype=bfloat16")
    assert "the activations are bfloat16. Pass --dtype=float32" in error


def test_existing_folder_is_kept_or_replaced_on_request(
    exported, checkpoint_dir, capsys, tmp_path
):
    arguments = (f"--checkpoint={checkpoint_dir}", "--platforms=cuda", "--size=32")
    error = fails(capsys, *arguments, f"--to={exported}")
    assert (
        "holds an exported network. Name another, or pass --existing=overwrite."
        in error
    )
    (tmp_path / "thesis.tex").write_text("x")
    error = fails(capsys, *arguments, f"--to={tmp_path}", "--overwrite")
    assert "must be new or empty" in error
    target = tmp_path / "copy"
    target.mkdir()
    (target / "metadata.json").write_text("{}")
    (target / "model.onnx").write_text("old")
    code, _, _ = run(capsys, *arguments, f"--to={target}", "--overwrite")
    assert code == 0
    assert not (target / "model.onnx").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


@pytest.mark.parametrize("failing", ["stablehlo", "onnx"])
def test_finished_format_is_kept_when_another_fails(
    failing, checkpoint_dir, capsys, tmp_path, monkeypatch
):
    # On disk before the check that fails; as a library's error of several lines.
    def fail(*_):
        raise RuntimeError("no such kernel\nat line 7")

    reader = {"stablehlo": (stablehlo, "read"), "onnx": (onnx_graph, "Session")}
    monkeypatch.setattr(*reader[failing], fail)
    target = tmp_path / "new"
    options = (f"--checkpoint={checkpoint_dir}", f"--to={target}", "--platforms=cpu")
    options += ("--batch=2", "--size=32x64")
    error = fails(capsys, *options, "--format=stablehlo,onnx")
    kept = "onnx" if failing == "stablehlo" else "stablehlo"
    assert f"{kept} is in {target}, {failing} is not, because no such kernel\n" in error
    metadata = json.loads((target / "metadata.json").read_text())
    assert list(metadata["files"]) == [kept]
    names = {path.name for path in target.iterdir()}
    loader = {"load_exported.py"} if kept == "stablehlo" else set()
    assert names == {"metadata.json", f"model.{kept}", *loader}

    # Alone it leaves the folder as it was, and is a library's affair.
    with pytest.raises(RuntimeError, match="no such kernel"):
        run(capsys, *options, "--overwrite", f"--format={failing}")
    assert {path.name for path in target.iterdir()} == names


def test_folder_without_program_is_not_loaded(tmp_path):
    with pytest.raises(ValueError, match="must hold metadata.json"):
        export.load(tmp_path)
    (tmp_path / "metadata.json").write_text('{"files": {"onnx": {}}}')
    with pytest.raises(ValueError, match="must hold a StableHLO program"):
        export.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(("metadata.json", text) for text in (b"", b"[1]", b"1e999", b"\xff", b"{}")),
        ("metadata.json", b'{"files": {"stablehlo": {"file": 1.5}}}'),
        *(("model.stablehlo", data) for data in (b"", b"PK\3\4", None)),
    ],
)
def test_damaged_folder_is_refused(name, data, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "network")
    export.load(folder)
    if data is None:  # One bit, in the midst of the weights.
        whole = bytearray((folder / name).read_bytes())
        whole[len(whole) // 2] ^= 1
        data = bytes(whole)
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match="must be as segnext-jax export has written"):
        export.load(folder)
