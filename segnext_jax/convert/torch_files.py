"""PyTorch's checkpoint files, read without PyTorch and without executing anything.

A file is a pickle whose tensors name storages, raw numbers beside it: members of a zip
archive, or (before PyTorch 1.6) blocks behind it. The pickle names functions to call.
Those that build tensors are bound to stand-ins, which make views of checked storages;
`BOOKKEEPING` becomes inert objects; every other name is refused.
"""

import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from segnext_jax.convert import pickles

# What training runs store beside the weights: loss histories, random states, settings.
BOOKKEEPING = (
    *("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr"),
    *("numpy.ndarray", "numpy.dtype", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"),
    *("numpy._core.multiarray._reconstruct", "argparse.Namespace", "torch.device"),
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
# NumPy's types by the names of storages and of PyTorch's own types.
TYPES = {
    **{"Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4"},
    **{"Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"},
    **{"float32": "f4", "float64": "f8", "float16": "f2", "int64": "i8"},
    **{"int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?"},
}
# NumPy has no such numbers: the upper halves of float32.
BRAIN = ("BFloat16", "bfloat16")
# What older files begin with, as three pickles.
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


class Refused(pickle.UnpicklingError):
    """A name that could execute code."""


@dataclasses.dataclass(frozen=True)
class _Type:
    """Stand-in for the class of a storage and for a type."""

    name: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u2" if self.name in BRAIN else TYPES[self.name])


@dataclasses.dataclass
class _Storage:
    type: _Type
    values: np.ndarray


@dataclasses.dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type: _Type

    def to_numpy(self) -> np.ndarray:
        values = self.storage.values.view(self.type.dtype)
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(n < 0 for n in numbers):
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape}")
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * step for size, step in steps)
        if math.prod(self.shape) and last >= len(values):
            raise pickle.UnpicklingError(f"a tensor of {self.shape} beyond its storage")
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :],
            self.shape,
            [step * values.itemsize for step in self.strides],
        )
        if self.type.name in BRAIN:
            return (view.astype("u4") << 16).view("f4")
        return view.astype(view.dtype.newbyteorder("="), copy=False)


class _Inert:
    """Takes anything, does nothing, stands for whatever `BOOKKEEPING` names."""

    def __new__(cls, *_: Any, **__: Any):
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any):
        pass

    def __setitem__(self, key: Any, value: Any):
        pass


def _rebuild(
    storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides), storage.type)


def _rebuild_typed(
    *arguments: Any,  # As above, requires_grad, hooks, type, metadata.
) -> _Tensor:
    return dataclasses.replace(_rebuild(*arguments), type=arguments[6])


ADMITTED = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": tuple,
    "torch.storage.UntypedStorage": _Type("Byte"),
    "builtins.set": set,
    "_codecs.encode": pickles.ADMITTED["_codecs", "encode"],
    "builtins.bytes": pickles.ADMITTED["builtins", "bytes"],
    **dict.fromkeys(BOOKKEEPING, _Inert),
}
for _name in (*TYPES, *BRAIN):
    ADMITTED[f"torch.{_name}" + ("Storage" if _name[0].isupper() else "")] = _Type(
        _name
    )


class _Unpickler(pickle.Unpickler):
    """Knows the names in `ADMITTED` and no other."""

    def __init__(self, stream: io.BufferedIOBase, load: Callable[..., _Storage]):
        super().__init__(stream, encoding="utf-8")
        self._load = load

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full not in ADMITTED:
            raise Refused(full)
        return ADMITTED[full]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, type_, key, _, count, *view = pid
        if kind != "storage" or not isinstance(type_, _Type) or any(view):
            raise pickle.UnpicklingError(f"a reference to {kind!r}")
        return self._load(type_, str(key), int(count))


def read(path: pathlib.Path) -> Any:
    """Return what a file holds, tensors as NumPy arrays.

    Raises:
      Refused: If the file names anything that could execute code.
      Exception: If the file is damaged; many types are possible.
    """
    with path.open("rb") as stream:
        if zipfile.is_zipfile(stream):
            stream.seek(0)
            return _resolve(_read_zip(stream))
        stream.seek(0)
        return _resolve(_read_legacy(stream, path.stat().st_size))


def _read_zip(stream: io.BufferedIOBase) -> Any:
    with zipfile.ZipFile(stream) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("an archive without data.pkl")
        folder = names[0].removesuffix("data.pkl")
        order = "<"
        if folder + "byteorder" in archive.namelist():
            order = {b"little": "<", b"big": ">"}[archive.read(folder + "byteorder")]
        storages: dict[str, _Storage] = {}

        def load(type_: _Type, key: str, count: int) -> _Storage:
            if key not in storages:
                info = archive.getinfo(f"{folder}data/{key}")
                # PyTorch compresses nothing; what is compressed could be endless.
                if info.compress_type != zipfile.ZIP_STORED:
                    raise pickle.UnpicklingError("a compressed storage")
                data = bytearray(archive.read(info))
                dtype = type_.dtype if order == "<" else type_.dtype.newbyteorder(">")
                storages[key] = _Storage(type_, np.frombuffer(data, dtype))
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(names[0])), load).load()


def _read_legacy(stream: io.BufferedIOBase, size: int) -> Any:
    storages: dict[str, _Storage] = {}
    left = size

    def load(type_: _Type, key: str, count: int) -> _Storage:
        """Return a storage to be filled: its numbers come behind the pickle."""
        nonlocal left
        if key not in storages:
            left -= count * type_.dtype.itemsize
            if count < 0 or left < 0:
                raise pickle.UnpicklingError(f"{count} numbers in {size} bytes")
            storages[key] = _Storage(type_, np.zeros(count, type_.dtype))
        return storages[key]

    def part() -> Any:
        return _Unpickler(stream, load).load()

    if (part(), part()) != (MAGIC, PROTOCOL):
        raise pickle.UnpicklingError("a beginning that is not PyTorch's")
    order = "<" if part().get("little_endian", True) else ">"
    content = part()
    for key in part():
        values = storages[str(key)].values
        (count,) = struct.unpack("<q", stream.read(8))
        data = stream.read(values.nbytes)
        if count != len(values) or len(data) != values.nbytes:
            raise pickle.UnpicklingError("a file that ends early")
        values[:] = np.frombuffer(data, values.dtype.newbyteorder(order))
    return content


def _resolve(value: Any) -> Any:
    """Replace stand-ins by arrays, in plain containers."""
    if isinstance(value, _Tensor):
        return value.to_numpy()
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    return value
