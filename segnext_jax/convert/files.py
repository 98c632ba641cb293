"""Reading and writing PyTorch, safetensors, JSeg and NumPy files as NumPy arrays.

Nothing in a file is executed. torch and safetensors are imported only when such a file
is read or written.
"""

import importlib
import pathlib
import pickle
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from segnext_jax.cli.whole_files import whole_file
from segnext_jax.convert import pickles

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".pkl", ".npz")

# What training runs of mmcv and mmengine store beside the weights (loss histories).
# torch's safe loader refuses these names; here they become an inert object.
BOOKKEEPING = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
)


class _Inert:
    """Takes anything, does nothing, stands for whatever `BOOKKEEPING` names."""

    def __new__(cls, *arguments: Any, **named: Any):
        """Forget the arguments."""
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any):
        pass

    def __setstate__(self, state: Any):
        pass


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """Return the content of a checkpoint file, tensors as NumPy arrays.

    Args:
      path: ``.pth``, ``.pt``, ``.safetensors``, ``.npz`` or (JSeg) ``.pkl``.

    Returns:
      Keys and arrays; in ``.pth`` and ``.pkl`` files also nested dictionaries and other
      plain values.

    Raises:
      ValueError: If the file is missing, of another kind, damaged, or wants to execute
        something; or if the library that reads it is not installed.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"the checkpoint must be a file: {path} is not there.")
    if path.suffix in TORCH_SUFFIXES:
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
      path: The suffix chooses the kind: ``.pth`` and ``.pt`` hold ``{"meta": meta,
        "state_dict": ...}`` as mmsegmentation does, ``.pkl`` holds ``{"meta": meta,
        "model": ...}`` as JSeg does, the others the arrays alone.
      state_dict: Arrays by name.
      meta: Class names and the like; plain values.
      overwrite: Whether an existing file may be replaced.

    Raises:
      ValueError: If the file exists, its kind is unknown, or a library is missing.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise ValueError(
            f"the file to write must be new: {path} exists. Name another, or pass "
            "--existing=overwrite."
        )
    with whole_file(path) as partial:
        if path.suffix in TORCH_SUFFIXES:
            _write_torch(partial, state_dict, meta)
        elif path.suffix == ".safetensors":
            numpy_files = _library("safetensors.numpy", path)
            # In bytes first: save_file makes a file that only its owner may read.
            data = numpy_files.save(dict(state_dict), {"format": "pt"})
            partial.write_bytes(data)
        elif path.suffix == ".npz":
            np.savez(partial, allow_pickle=False, **state_dict)
        else:
            pickles.write(partial, {"meta": dict(meta), "model": dict(state_dict)})


def check_suffix(path: pathlib.Path) -> None:
    """Refuse a file of unknown kind.

    Raises:
      ValueError: If the suffix is none of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"a checkpoint file must end in one of {', '.join(SUFFIXES)}: got {path}."
        )


def _library(name: str, path: pathlib.Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(
            f"{path.suffix} files need {package}, which is not installed: got {path}. "
            "Run pip install 'segnext_jax[torch]'."
        ) from error


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"{path} must be a whole {path.suffix} file: reading it failed with "
        f"{type(error).__name__}: {reason}. Fetch it again."
    )


def _read_torch(path: pathlib.Path) -> Any:
    torch = _library("torch", path)
    stand_ins = [(_Inert, name) for name in BOOKKEEPING]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(torch, path, error) from error
    # torch raises many types for damaged files, RuntimeError and EOFError among them.
    except Exception as error:
        raise _damaged(path, error) from error
    return _to_numpy(torch, content)


def _unsafe(torch: Any, path: pathlib.Path, error: Exception) -> ValueError:
    try:
        # Lists names, loads nothing; knows zip files only.
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        names = []
    names = [name for name in names if name not in BOOKKEEPING]
    if not names:
        return _damaged(path, error)
    return ValueError(
        f"{path} must hold tensors and plain values only: it names {', '.join(names)}, "
        "which could execute code. Ask its author for a file of model.state_dict()."
    )


def _to_numpy(torch: Any, value: Any) -> Any:
    """Replace tensors by arrays that share their memory."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype == torch.bfloat16:  # Unknown to NumPy.
            value = value.float()
        return value.numpy()
    if isinstance(value, Mapping):
        return {key: _to_numpy(torch, item) for key, item in value.items()}
    return value


def _write_torch(
    path: pathlib.Path, state_dict: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    torch = _library("torch", path)
    # JAX gives views that may not be written to, of which torch warns.
    tensors = {
        name: torch.from_numpy(value if value.flags.writeable else value.copy())
        for name, value in state_dict.items()
    }
    torch.save({"meta": dict(meta), "state_dict": tensors}, path)


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
            return dict(arrays)
    # zipfile, zlib and NumPy raise many types.
    except Exception as error:
        raise _damaged(path, error) from error
