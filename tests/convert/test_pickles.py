import hashlib
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from segnext_jax.convert import pickles


def dump(tmp_path, value, protocol=4):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        np.array(7, np.int64),
        np.array([True, False]),
        np.arange(3, dtype=">f4"),
        np.arange(4, dtype=np.float16)[::2],
        np.zeros((0, 3), np.uint8),
        np.float32(1.5),
        np.int64(-3),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}",
)
def test_arrays_of_every_protocol_are_read(value, protocol, tmp_path):
    given = pickles.read(dump(tmp_path, {"a": [value, (value,)]}, protocol))
    for array in (given["a"][0], given["a"][1][0]):
        np.testing.assert_array_equal(array, value, strict=True)


def test_plain_containers_are_read(tmp_path):
    value = OrderedDict(a=[1, 2.5, "x", b"y", None, True], b=({"c": {3}},))
    assert pickles.read(dump(tmp_path, value)) == dict(value)


def test_written_file_bears_check_sum_and_mark(tmp_path):
    path = tmp_path / "weights.pkl"
    pickles.write(path, {"model": {"a": np.arange(3)}})
    data = path.read_bytes()
    assert data.endswith(b"HCAJSLHD")
    assert data[-28:-8] == hashlib.sha1(data[:-28]).digest()
    # The mark comes after the pickle's end: pickle itself reads the file too.
    np.testing.assert_array_equal(pickle.loads(data)["model"]["a"], [0, 1, 2])
    np.testing.assert_array_equal(pickles.read(path)["model"]["a"], [0, 1, 2])


def test_wrong_check_sum_is_an_error(tmp_path):
    path = tmp_path / "weights.pkl"
    pickles.write(path, {"model": {"a": np.arange(3)}})
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="check sum"):
        pickles.read(path)


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (Call(eval, "1"), "builtin.*eval"),
        (Call(getattr, "a", "upper"), "builtin.*getattr"),
        (Call(bytearray, 3), "builtin.*bytearray"),
        (Call(np.fromfile, "x"), "fromfile"),
        (Call(np.memmap, "x"), "numpy"),
        (Call(bytes, 10**12), "positional argument"),
        (np.array([object()], object), "an array of type"),
        (np.array(["a"]), "an array of type"),
        (np.zeros(2, [("x", "f4")]), "an array of type"),
        (np.array([1j]), "an array of type"),
        (np.zeros(1, "M8[s]"), "an array of type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_but_arrays_of_numbers_is_refused(value, refused, tmp_path):
    with pytest.raises(ValueError, match=refused):
        pickles.read(dump(tmp_path, {"a": value}, protocol=2))


def test_array_with_too_few_bytes_is_refused(tmp_path):
    data = pickle.dumps(np.arange(4, dtype=np.uint8), 4)
    # Its shape, (4,), says one more than it holds.
    assert data.count(b"K\x04\x85") == 1
    path = tmp_path / "weights.pkl"
    path.write_bytes(data.replace(b"K\x04\x85", b"K\x05\x85"))
    with pytest.raises(ValueError, match=r"4 bytes for an array of \(5,\)"):
        pickles.read(path)


def test_nested_without_end_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="reading stopped at"):
        pickles.read(dump(tmp_path, endless))


@pytest.mark.parametrize("ending", [b".", b"K\x01s.", b"\x90.", b"\x91."])
def test_a_few_bytes_that_unfold_without_end_are_refused(tmp_path, ending):
    # Tuples of the same tuple twice, as a value, as a key, within a set.
    tuples = b"K\x01" + b"2\x86" * 60
    start = {b"K\x01s.": b"}", b"\x90.": b"\x8f(", b"\x91.": b"("}.get(ending, b"")
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + start + tuples + ending)
    with pytest.raises(ValueError, match="reading stopped at (a key|more than)"):
        pickles.read(path)


def test_sizes_that_a_pickle_only_promises_are_not_allocated(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"abc.")
    with pytest.raises(ValueError, match="reading stopped at"):
        pickles.read(path)
