import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

from segnext_jax import convert
from segnext_jax.convert import files
from segnext_jax.convert.detect import unwrap

torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
pytest.importorskip("safetensors", reason="needs safetensors")

ARRAYS = {
    "a.weight": np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype("f4"),
    "a.bias": np.arange(3, dtype=np.float32),
    "a.num_batches_tracked": np.zeros((), np.int64),
}
META = {"CLASSES": ["wall", "sky"], "PALETTE": [[1, 2, 3], [4, 5, 6]]}


@pytest.fixture(params=files.SUFFIXES)
def written(request, tmp_path):
    path = tmp_path / f"weights{request.param}"
    files.write(path, ARRAYS, META)
    return path


class Payload:
    """Creates a file when it is unpickled by anything that executes pickles."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_file_gives_back_the_arrays_bit_for_bit(written):
    given = unwrap(files.read(written))
    assert set(given) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(given[name], value, strict=True)


def test_torch_loads_the_written_file(tmp_path):
    path = tmp_path / "weights.pth"
    # Arrays of JAX are read-only views.
    arrays = {name: value.copy() for name, value in ARRAYS.items()}
    arrays["a.bias"].flags.writeable = False
    files.write(path, arrays, META)
    content = torch.load(path, weights_only=True)
    assert content["meta"] == META
    assert content["state_dict"]["a.num_batches_tracked"].dtype == torch.int64
    assert content["state_dict"]["a.num_batches_tracked"].shape == ()
    np.testing.assert_array_equal(content["state_dict"]["a.weight"], ARRAYS["a.weight"])


def test_torch_types_are_read(tmp_path):
    path = tmp_path / "weights.pt"
    value = torch.tensor([1.5, -2.0])
    torch.save({"half": value.half(), "brain": value.bfloat16()}, path)
    given = files.read(path)
    assert given["half"].dtype == np.float16
    assert given["brain"].dtype == np.float32
    np.testing.assert_array_equal(given["brain"], [1.5, -2.0])


def test_truncated_file_is_one_sentence(written):
    data = written.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 40):
        written.write_bytes(data[:length])
        with pytest.raises(ValueError, match="Fetch it again") as error:
            files.read(written)
        assert str(written) in str(error.value)
        assert "\n" not in str(error.value)


def test_file_of_another_kind_is_one_sentence(written):
    written.write_text("<html>404</html>")
    with pytest.raises(ValueError, match="Fetch it again"):
        files.read(written)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl"])
def test_malicious_file_is_refused_and_not_executed(suffix, tmp_path):
    proof = tmp_path / "executed"
    content = {"state_dict": dict(ARRAYS), "meta": Payload(proof)}
    path = tmp_path / f"weights{suffix}"
    # The payload works: pickle itself would run it.
    pickle.loads(pickle.dumps(content))
    assert proof.exists()
    proof.unlink()

    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"pathlib|Path\.touch|getattr"):
        files.read(path)
    assert not proof.exists()


def test_legacy_torch_file_is_not_executed_either(tmp_path):
    proof, path = tmp_path / "executed", tmp_path / "weights.pth"
    content = {"meta": Payload(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=str(path)):
        files.read(path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=str(path)):
        files.read(path)
    assert not proof.exists()


def test_bookkeeping_names_execute_nothing(tmp_path):
    """`builtins.getattr` is admitted by name only: it does not get attributes."""
    proof, path = tmp_path / "executed", tmp_path / "weights.pth"

    class Chain:
        def __reduce__(self):
            return getattr, (pathlib.PurePath, "joinpath")

    torch.save({"a": torch.zeros(2), "meta": Chain()}, path)
    with pytest.raises(ValueError, match="pathlib"):
        files.read(path)
    assert not proof.exists()


def test_objects_in_npz_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.array([Payload(tmp_path / "executed")], object))
    with pytest.raises(ValueError, match="whole .npz file"):
        files.read(path)
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_an_mmengine_run_is_read(tmp_path, monkeypatch):
    """Their loss histories are objects that torch's safe loader refuses."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self._statistics_methods = {"min": HistoryBuffer.minimum}

        def minimum(self):
            return np.min(self._log_history)

    HistoryBuffer.__module__ = module.__name__
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.minimum.__module__ = module.__name__
    HistoryBuffer.minimum.__qualname__ = "HistoryBuffer.minimum"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = tmp_path / "weights.pth"
    history = {"loss": HistoryBuffer(), "lr": np.float64(3)}
    weights = {"a.bias": torch.arange(3.0)}
    torch.save({"state_dict": weights, "message_hub": history}, path)
    # What torch does with the bare file.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    given = unwrap(files.read(path))
    np.testing.assert_array_equal(given["a.bias"], ARRAYS["a.bias"], strict=True)


def test_object_that_is_no_dictionary_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match="must hold a dictionary of arrays"):
        files.read(path)


def test_unknown_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must end in one of .pth, .pt"):
        files.read(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="is not there"):
        files.read(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("suffix", "package"), [(".pth", "torch"), (".safetensors", "safetensors")]
)
def test_missing_library_is_named_with_the_command(
    suffix, package, tmp_path, monkeypatch
):
    path = tmp_path / f"weights{suffix}"
    files.write(path, ARRAYS, META)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    message = rf"{package}.*/(weights|new)\{suffix}\. .*install 'segnext_jax\[torch"
    if package == "torch":
        np.testing.assert_array_equal(unwrap(files.read(path))["a.bias"], [0, 1, 2])
    else:
        with pytest.raises(ValueError, match=message):
            files.read(path)
    with pytest.raises(ValueError, match=message):
        files.write(tmp_path / f"new{suffix}", ARRAYS, META)


def test_existing_file_is_kept_unless_overwritten(written):
    before = written.read_bytes()
    with pytest.raises(ValueError, match="must be new"):
        files.write(written, {"b": ARRAYS["a.bias"]}, META)
    assert written.read_bytes() == before
    files.write(written, {"b": ARRAYS["a.bias"]}, META, overwrite=True)
    assert list(unwrap(files.read(written))) == ["b"]


def test_failed_writing_leaves_nothing_behind(written, monkeypatch):
    before = written.read_bytes()

    def fail(path, target):
        raise OSError("disk is full")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        files.write(written, ARRAYS, META, overwrite=True)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_error_about_the_content_names_the_file(tmp_path):
    path = tmp_path / "resnet.npz"
    files.write(path, {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1))}, {})
    with pytest.raises(ValueError, match=f"{path}: a SegNeXt checkpoint must hold"):
        convert.from_file(path)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_torch_is_not_imported_to_read(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    files.write(path, ARRAYS, META)
    program = (
        "import sys; from segnext_jax import convert; from segnext_jax.convert import "
        f"files; files.read({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_arrays_that_inflate_without_end_are_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(2**25, np.float32))
    with pytest.raises(ValueError, match=r"its arrays inflate to 134,217,8\d\d bytes"):
        files.read(path)
