"""Files of weights, as training starts from them."""

import functools
import io
import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np

from segnext_jax import weights
from segnext_jax.convert import files, from_file
from segnext_jax.convert.names import entries
from segnext_jax.models.segnext import VARIANTS, Variant
from segnext_jax.weights import shared_folder
from tests.robustness import mutations
from tests.robustness.case import Case
from tests.robustness.old_run import unpacked
from tests.robustness.pictures import FOREIGN

_VARIANT = Variant((4, 4, 4, 4), (1, 1, 1, 1), (1, 1, 1, 1), 0.0, 32, 2)
_SUFFIXES = (".pth", ".safetensors", ".npz", ".pkl")


class _Hostile:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        entry.official: rng.standard_normal(entry.shape, np.float32)
        if entry.path
        else np.zeros((), np.int64)
        for entry in entries(_VARIANT, 3)
    }


@functools.cache
def _whole(scratch: Path, suffix: str) -> bytes:
    path = scratch / f"whole{suffix}"
    files.write(path, _arrays(), {"CLASSES": ["a", "b", "c"]})
    return path.read_bytes()


@functools.cache
def _shared(scratch: Path) -> Path:
    """Return a network's folder as it is published."""
    folder = scratch / "shared"
    folder.mkdir()
    shared_folder.write(folder, weights.load(unpacked(scratch) / "model"), None)
    return folder


@functools.cache
def _published() -> dict[str, np.ndarray]:
    """Return a network of published size: of no other, classes are looked up."""
    return {
        entry.official: np.zeros(entry.shape, np.float16)
        for entry in entries(VARIANTS["tiny"], 3)
        if entry.path
    }


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a file or published folder of weights."""
    choice = int(rng.integers(12))
    if choice == 0:
        return _false_classes(rng, folder)
    if choice < 3:
        return _damaged_folder(rng, folder)
    suffix = str(rng.choice(_SUFFIXES))
    what, data, is_wrong = _contents(rng, folder, suffix)
    path = folder / f"weights{suffix}"
    path.write_bytes(data)

    def use() -> None:
        found = from_file(path, variant=_VARIANT, num_classes=3).variables
        kernel = found["params"]["decode_head"]["conv_seg"]["kernel"]
        assert kernel.dtype == np.float32

    return Case(f"{suffix}, {what}", use, is_wrong)


def _false_classes(rng: np.random.Generator, folder: Path) -> Case:
    path = folder / "own.pkl"
    odd = (
        3,
        "abc",
        None,
        [],
        [1, 2, 3],
        [None] * 3,
        ["a", "a", "b"],
        ["", "\n", "\ud800"],
    )
    odd += (
        {"a": 1},
        [[1, 2]] * 3,
        [[1, 2, 256]] * 3,
        [[1, 2, 10**400]] * 3,
        np.ones(3),
    )
    names, palette = (odd[int(rng.integers(len(odd)))] for _ in range(2))
    pairs = {"CLASSES": names, "PALETTE": palette}
    if rng.random() < 0.5:
        pairs = {"dataset_meta": {"classes": names, "palette": palette}}
    files.write(path, _published(), pairs)
    return Case(f"{pairs}"[:200], lambda: weights.load_network(path))


def _damaged_folder(rng: np.random.Generator, folder: Path) -> Case:
    target = shutil.copytree(_shared(folder.parent), folder / "shared")
    paths = sorted(target.iterdir())
    path = paths[int(rng.integers(len(paths)))]
    data = path.read_bytes()
    what, changed = "cut", mutations.cut(rng, data)
    if rng.random() < 0.7:
        what, changed = mutations.mutate(rng, data)
    path.write_bytes(changed)
    is_wrong = changed != data and path.name != shared_folder.CHECKSUMS_FILE
    return Case(f"{path.name} {what}", lambda: weights.load(target), is_wrong)


def _contents(
    rng: np.random.Generator, folder: Path, suffix: str
) -> tuple[str, bytes, bool]:
    data = _whole(folder.parent, suffix)
    choice = int(rng.integers(7))
    if choice == 0:
        return "cut", mutations.cut(rng, data), True
    if choice == 1:
        foreign = FOREIGN[int(rng.integers(len(FOREIGN)))]
        return f"{foreign[:12]!r}", foreign, True
    if choice == 2:
        return _hostile(rng, suffix)
    if choice in (3, 4):
        return _false_arrays(rng, folder, suffix)
    if choice == 5:
        return "as it should be", data, False
    what, data = mutations.mutate(rng, data)
    return what, data, False


def _false_arrays(
    rng: np.random.Generator, folder: Path, suffix: str
) -> tuple[str, bytes, bool]:
    """Return a whole file of which one array is no weight."""
    arrays = _arrays()
    name = str(rng.choice([name for name, value in arrays.items() if value.ndim]))
    value = arrays[name]
    nan, large = np.full_like(value, np.nan), np.full(value.shape, 1e300)
    one_inf = value.copy()
    one_inf.flat[-1] = np.inf
    false = [nan, one_inf, large, value[:-1], value[None], value.T[..., None]]
    false += [np.zeros(0, np.float32), np.zeros((), np.float32)]
    if suffix == ".npz":
        false += [value.astype(complex), value.astype(str), value.astype("M8[s]")]
        false += [np.zeros(value.shape, "f4,i4"), value.astype(bytes)]
    index = int(rng.integers(len(false)))
    arrays[name] = np.ascontiguousarray(false[index])
    path = folder / f"false{suffix}"
    files.write(path, arrays, {})
    what = f"{name} of {false[index].dtype} {list(false[index].shape)}, {index}"
    return what, path.read_bytes(), True


def _hostile(rng: np.random.Generator, suffix: str) -> tuple[str, bytes, bool]:
    """Return a pickle that executes code, in what the suffix promises."""
    calls = [
        _Hostile(os.system, "true"),
        _Hostile(subprocess.Popen, "true"),
        _Hostile(eval, "__import__('os').system('true')"),
        _Hostile(exec, "import os; os.system('true')"),
        _Hostile(bytearray, 2**40),
        _Hostile(pickle.loads, pickle.dumps(_Hostile(os.system, "true"))),
    ]
    index = int(rng.integers(len(calls)))
    protocol = int(rng.integers(6))
    content = {"state_dict": {"a": np.ones(3), "b": calls[index]}}
    pickled = pickle.dumps(content, protocol)
    what = f"hostile {index} by protocol {protocol}"
    file = io.BytesIO()
    if suffix == ".pth" and rng.random() < 0.7:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/version", "3\n")
        return f"{what} in a zip", file.getvalue(), True
    if suffix == ".npz":
        object_array = np.array([calls[index]], object)
        np.savez(file, a=object_array, allow_pickle=True)
        return what, file.getvalue(), True
    return what, pickled, True
