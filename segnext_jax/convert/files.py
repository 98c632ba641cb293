"""Reading and writing PyTorch, safetensors, JSeg and NumPy files as NumPy arrays.

Nothing in a file is executed. safetensors is imported only when such a file is read or
written, torch when one of its files is written.
"""

import importlib
import io
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import whole_file
from segnext_jax.convert import pickles, torch_files
from segnext_jax.datasets.pairs import one_line

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin")
_MAX_INFLATION = 100
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".pkl", ".npz")


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, tensors as NumPy arrays.

    Args:
      path: A file of PyTorch, safetensors, NumPy or (``.pkl``) JSeg; see `SUFFIXES`.

    Returns:
      Keys and arrays; in files of PyTorch and JSeg also nested dictionaries and other
      plain values.

    Raises:
      ValueError: If the file is missing, of another kind, damaged, or wants to execute
        something; or if the library that reads it is not installed.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"the checkpoint must be a file: {path} is not there.")
    if suffix_of(path) in TORCH_SUFFIXES:
        content = _read_torch(path)
    elif path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif path.suffix == ".npz":
        content = _read_npz(path)
    else:
        content = pickles.read(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} must hold a dictionary of arrays: it holds an object of type "
            f"{type(content).__name__}. Save model.state_dict(), not the model."
        )
    return dict(content)


def write(
    path: str | pathlib.Path,
    state_dict: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write arrays under their names; whole or not at all.

    Args:
      path: The suffix chooses the kind: PyTorch's hold ``{"meta": meta,
        "state_dict": ...}`` as mmsegmentation does, ``.pkl`` holds ``{"meta": meta,
        "model": ...}`` as JSeg does, the others the arrays alone.
      state_dict: Arrays by name.
      meta: Class names and the like; plain values.
      overwrite: Whether an existing file may be replaced.

    Raises:
      ValueError: If the file exists, its kind is unknown, or a library is missing.
    """
    path = storage.as_path(path)
    check_suffix(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise ValueError(
            f"the file to write must be new: {path} exists. Name another, or pass "
            "--existing=overwrite."
        )
    with whole_file(path) as partial:
        if suffix_of(path) in TORCH_SUFFIXES:
            _write_torch(_library("torch", path), partial, state_dict, meta)
        elif path.suffix == ".safetensors":
            numpy_files = _library("safetensors.numpy", path)
            # In bytes first: save_file makes a file that only its owner may read.
            data = numpy_files.save(dict(state_dict), {"format": "pt"})
            partial.write_bytes(data)
        elif path.suffix == ".npz":
            np.savez(partial, allow_pickle=False, **state_dict)
        else:
            pickles.write(partial, {"meta": dict(meta), "model": dict(state_dict)})


def suffix_of(path: pathlib.Path) -> str:
    """Return the one of `SUFFIXES` that a name ends in, or nothing."""
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")


def check_suffix(path: pathlib.Path) -> None:
    """Refuse a file of unknown kind.

    Raises:
      ValueError: If the suffix is none of `SUFFIXES`.
    """
    if not suffix_of(path):
        raise ValueError(
            f"a checkpoint file must end in one of {', '.join(SUFFIXES)}: got {path}."
        )


def _library(name: str, path: pathlib.Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(
            f"{suffix_of(path)} files need {package}, which is not installed: got "
            f"{path}. Run pip install 'segnext_jax[torch]'."
        ) from error


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
    reason = one_line(error)[:200]
    return ValueError(
        f"{path} must be a whole {suffix_of(path)} file: reading it failed with "
        f"{type(error).__name__}: {reason}. Fetch it again."
    )


def _read_torch(path: pathlib.Path) -> Any:
    try:
        return torch_files.read(path)
    except torch_files.Refused as error:
        raise ValueError(
            f"{path} must hold tensors and plain values only: it names {error}, which "
            "could execute code. Ask its author for a file of model.state_dict()."
        ) from error
    # A damaged file can fail in any operation of pickle and zipfile.
    except Exception as error:
        raise _damaged(path, error) from error


def _write_torch(
    torch: Any,
    path: pathlib.Path,
    state_dict: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
) -> None:
    # JAX gives views that may not be written to, of which torch warns.
    tensors = {
        name: torch.from_numpy(value if value.flags.writeable else value.copy())
        for name, value in state_dict.items()
    }
    # In memory first: where the disk is full, torch's own error tells nothing.
    data = io.BytesIO()
    torch.save({"meta": dict(meta), "state_dict": tensors}, data)
    path.write_bytes(data.getbuffer())


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    numpy_files = _library("safetensors.numpy", path)
    try:
        return numpy_files.load_file(path)
    # safetensors has its own error type, and passes on those of NumPy and the system.
    except Exception as error:
        raise _damaged(path, error) from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        # np.load leaves a file open that it could not read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            # Weights hardly shrink: what inflates a hundredfold holds none.
            size = sum(info.file_size for info in arrays.zip.infolist())
            if size > _MAX_INFLATION * path.stat().st_size + 2**26:
                raise ValueError(f"its arrays inflate to {size:,} bytes")
            return dict(arrays)
    # zipfile, zlib and NumPy raise many types.
    except Exception as error:
        raise _damaged(path, error) from error
