"""JSeg's checkpoint files: pickles of NumPy arrays, read without executing anything.

A pickle names functions to call. This reader calls none of them: the few names that
NumPy's own arrays need are bound to small stand-ins, which accept plain numbers only;
every other name is refused.
"""

import hashlib
import io
import math
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from segnext_jax.datasets.pairs import one_line

# Jittor's files end in a SHA-1 sum of the pickle and this mark (jittor/__init__.py).
MARK = b"HCAJSLHD"
CHECKSUM_SIZE = 20
# Kinds of NumPy types that hold plain numbers: bool, signed, unsigned, float.
NUMBER_KINDS = "biuf"
# A network has about a thousand arrays; histories of a run hold more.
_MAX_VALUES = 1_000_000


class _Type:
    """Stand-in for `numpy.dtype`."""

    def __init__(self, name: str, align: bool = False, copy: bool = False):
        if not isinstance(name, str):
            raise pickle.UnpicklingError(f"an array of type {type(name).__name__}")
        self.dtype = np.dtype(name)
        if self.dtype.kind not in NUMBER_KINDS:
            raise pickle.UnpicklingError(f"an array of type {name!r}")

    def __setstate__(self, state: tuple):
        # (version, byte order, ...); the rest describes structured types.
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand-in for `numpy.ndarray`, which pickle creates empty and then fills."""

    def __init__(self, *arguments: Any):
        self.value = np.zeros(0, np.float32)

    def __setstate__(self, state: tuple):
        _, shape, dtype, is_fortran, data = state
        self.value = _fill(data, dtype, shape, "F" if is_fortran else "C")


def _fill(data: Any, dtype: _Type, shape: tuple, order: Any) -> np.ndarray:
    if isinstance(data, str):  # Pickles of Python 2.
        data = data.encode("latin1")
    # A product of anything else could be of any size.
    if not all(type(side) is int for side in shape):
        raise pickle.UnpicklingError("an array whose shape is not of whole numbers")
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"{len(data)} bytes for an array of {shape}")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Type, data: Any) -> Any:
    return _fill(data, dtype, (), "C")[()]


def _no_bytes() -> bytes:
    """Stand-in for `bytes`, by which old protocols write empty arrays."""
    return b""


def _ordered_dict(items: Any = ()) -> OrderedDict:
    """Stand-in for `OrderedDict`, whose old pickles give its items."""
    _check_keys([key for key, _ in items])
    return OrderedDict(items)


def _check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys that could take for ever to hash: tuples of shared tuples."""
    for key in keys:
        if not isinstance(key, str | int | float | bytes | None):
            raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for `codecs.encode`, by which old protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


ADMITTED = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): _ordered_dict,
}
for _module in ("numpy.core", "numpy._core"):
    ADMITTED[_module + ".multiarray", "_reconstruct"] = _reconstruct
    ADMITTED[_module + ".multiarray", "scalar"] = _scalar
    ADMITTED[_module + ".numeric", "_frombuffer"] = _fill


# Python's own implementation, which typeshed lacks.
_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class _Unpickler(_PythonUnpickler):
    """Knows the names in `ADMITTED` and no other, and plain keys.

    It extends the unpickler in Python, not the one in C: here each step can be checked,
    and a number in the file alone allocates nothing.
    """

    def _load_pairs(self) -> None:
        _check_keys(self.stack[::2])  # Since the last mark.
        _PythonUnpickler.load_setitems(self)

    def _load_pair(self) -> None:
        _check_keys(self.stack[-2:-1])
        _PythonUnpickler.load_setitem(self)

    def _load_dict(self) -> None:
        _check_keys(self.stack[::2])
        _PythonUnpickler.load_dict(self)

    def _load_items(self) -> None:
        _check_keys(self.stack)
        _PythonUnpickler.load_additems(self)

    def _load_frozenset(self) -> None:
        _check_keys(self.stack)
        _PythonUnpickler.load_frozenset(self)

    def _load_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar[dict] = {
        **_PythonUnpickler.dispatch,
        pickle.SETITEMS[0]: _load_pairs,
        pickle.SETITEM[0]: _load_pair,
        pickle.DICT[0]: _load_dict,
        pickle.ADDITEMS[0]: _load_items,
        pickle.FROZENSET[0]: _load_frozenset,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name, or refuse it."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return ADMITTED[module, name]


def read(path: pathlib.Path) -> Any:
    """Return what a pickle holds: containers, numbers, strings and NumPy arrays.

    Raises:
      ValueError: If the file is truncated, its checksum is wrong, or the pickle holds
        anything else.
    """
    data = path.read_bytes()
    if data.endswith(MARK):
        end = len(data) - len(MARK) - CHECKSUM_SIZE
        data, checksum = data[:end], data[end : end + CHECKSUM_SIZE]
        if hashlib.sha1(data).digest() != checksum:
            raise ValueError(
                f"the check sum at the end of {path} does not fit its content: the "
                "file is damaged. Fetch it again."
            )
    try:
        content = _Unpickler(io.BytesIO(data)).load()
        _check_size(content, {})
        return _resolve(content)
    # A damaged pickle can fail in any of pickle's own operations.
    except Exception as error:
        raise ValueError(
            f"{path} must be a pickle of NumPy arrays in plain containers, whole and "
            f"with nothing to execute: reading stopped at {one_line(error)}. Fetch it "
            "again, or save it as .npz or .safetensors."
        ) from error


def _check_size(value: Any, known: dict[int, int]) -> int:
    """Return the number of values within, refuse more than a network has.

    A list that holds another twice, which holds another twice, and so on, is of a few
    bytes and has no end for whoever walks through it.
    """
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        is_container = isinstance(value, dict | list | tuple)
        count = 1
        for part in parts if is_container else ():
            count += _check_size(part, known)
        if count > _MAX_VALUES:
            raise pickle.UnpicklingError(f"more than {_MAX_VALUES:,} values")
        known[id(value)] = count
    return known[id(value)]


def _resolve(value: Any) -> Any:
    """Replace stand-ins by arrays."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    return value


def write(path: pathlib.Path, content: Any) -> None:
    """Write a pickle that Jittor's ``jt.load`` reads, with check sum and mark."""
    # Protocol 4, as Jittor writes it.
    data = pickle.dumps(content, protocol=4)
    path.write_bytes(data + hashlib.sha1(data).digest() + MARK)
