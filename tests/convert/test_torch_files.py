"""PyTorch's files without PyTorch, against PyTorch's own reader."""

import collections
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from segnext_jax.convert import torch_files

torch = pytest.importorskip("torch", reason="needs torch: pip install torch")

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def save(value, path, is_zip):
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def to_numpy(value):
    """Replace tensors in what torch.load returns."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(to_numpy, value))
    return value


@FORMATS
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8"]
    + ["uint8", "bool"],
)
def test_every_type_equals_torchs_bit_for_bit(dtype, is_zip, tmp_path):
    value = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 3
    path = save({"a": value.to(getattr(torch, dtype))}, tmp_path / "a.pth", is_zip)
    wanted = to_numpy(torch.load(path))["a"]
    np.testing.assert_array_equal(torch_files.read(path)["a"], wanted, strict=True)


@FORMATS
def test_views_parameters_and_containers_equal_torchs(is_zip, tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "state_dict": collections.OrderedDict(
            base=base,
            turned=base.permute(2, 0, 1),
            part=base[1, 1:, ::2],
            same=base,
            scalar=torch.tensor(7),
            empty=torch.zeros(0, 3),
            expanded=torch.ones(1, 1).expand(2, 5),
            parameter=torch.nn.Parameter(base * 2),
        ),
        "meta": {"CLASSES": ("wall", "sky"), "epoch": 3, "lr": 0.5, "note": "Größe"},
        "list": [torch.zeros(2), (torch.ones(1), None, True)],
        "size": base.shape,
        "type": torch.float32,
    }
    path = save(content, tmp_path / "a.pth", is_zip)
    given, wanted = torch_files.read(path), to_numpy(torch.load(path))
    for name, value in wanted["state_dict"].items():
        np.testing.assert_array_equal(given["state_dict"][name], value, strict=True)
    assert given["meta"] == wanted["meta"]
    assert given["list"][1][1:] == (None, True)
    np.testing.assert_array_equal(given["list"][1][0], [1])
    assert given["size"] == (2, 3, 4)


@FORMATS
def test_state_of_a_module_and_its_optimizer_equals_torchs(is_zip, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.zeros(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    content = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    path = save(content, tmp_path / "a.ckpt", is_zip)
    given, wanted = torch_files.read(path), to_numpy(torch.load(path))
    for name, value in wanted["model"].items():
        np.testing.assert_array_equal(given["model"][name], value, strict=True)
    state = given["optimizer"]["state"]
    np.testing.assert_array_equal(
        state[0]["exp_avg"], wanted["optimizer"]["state"][0]["exp_avg"], strict=True
    )


class Payload:
    """Creates a file when anything that executes pickles reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@FORMATS
def test_code_is_refused_by_name_and_not_executed(is_zip, tmp_path):
    proof = tmp_path / "executed"
    path = save({"a": Payload(proof)}, tmp_path / "a.pth", is_zip)
    with pytest.raises(torch_files.Refused, match="pathlib|getattr"):
        torch_files.read(path)
    assert not proof.exists()


class Reference:
    """What builds a tensor of any shape over a storage of four numbers."""

    def __init__(self, offset, shape, strides):
        self.numbers = offset, shape, strides

    def __reduce__(self):
        storage = torch.arange(4.0).storage()
        arguments = (*self.numbers, False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, (storage, *arguments)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("numbers", "is_within"),
    [
        ((1, (3,), (1,)), True),
        ((0, (2, 2), (2, 1)), True),
        ((2, (3,), (1,)), False),
        ((0, (2, 2), (3, 1)), False),
        ((-1, (2,), (1,)), False),
        ((3, (2,), (-1,)), False),
        ((0, (2, 2), (1,)), False),
        ((0, (1 << 40,), (1 << 40,)), False),
    ],
)
def test_tensor_stays_within_its_storage(numbers, is_within, tmp_path):
    path = save({"a": Reference(*numbers)}, tmp_path / "a.pth", True)
    if is_within:
        given = torch_files.read(path)["a"]
        assert given.shape == numbers[1] and given.ravel()[0] == numbers[0]
    else:
        with pytest.raises(pickle.UnpicklingError, match="a tensor of"):
            torch_files.read(path)


def test_compressed_storage_is_refused(tmp_path):
    path = save({"a": torch.zeros(1000)}, tmp_path / "a.pth", True)
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(pickle.UnpicklingError, match="a compressed storage"):
        torch_files.read(packed)


def test_storage_larger_than_its_file_is_not_allocated(tmp_path):
    data = save({"a": torch.zeros(2**17)}, tmp_path / "a.pth", False).read_bytes()
    # 131072 as pickle writes it: four bytes.
    count = b"J" + (2**17).to_bytes(4, "little")
    assert count in data
    path = tmp_path / "b.pth"
    path.write_bytes(data.replace(count, b"J" + (2**31 - 1).to_bytes(4, "little")))
    with pytest.raises(pickle.UnpicklingError, match="2147483647 numbers in"):
        torch_files.read(path)
