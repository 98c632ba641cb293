import io

import numpy as np
import pytest
import scipy.io

from segnext_jax.preparation.matlab_files import read_label_map

IDS = np.arange(12).reshape(3, 4)


def encode(contents) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, contents)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float64"])
def test_whole_numbers_of_any_type_are_ids(dtype):
    contents = encode({"LabelMap": IDS.astype(dtype), "other": 3})
    np.testing.assert_array_equal(read_label_map(contents, ("LabelMap",), "x"), IDS)


def test_a_field_of_a_struct_is_found():
    contents = encode({"GTcls": {"Boundaries": 1, "Segmentation": IDS.astype("u1")}})
    found = read_label_map(contents, ("GTcls", "Segmentation"), "x")
    np.testing.assert_array_equal(found, IDS)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"not matlab" * 100,
        encode({"LabelMap": IDS.astype("u2")})[:-9],
        encode({"Other": IDS}),
        encode({"LabelMap": IDS - 1}),
        encode({"LabelMap": IDS / 2}),
        encode({"LabelMap": IDS * np.nan}),
        encode({"LabelMap": "text"}),
        encode({"LabelMap": np.zeros((2, 3, 4), "u1")}),
    ],
)
def test_anything_else_is_refused_by_name(contents):
    with pytest.raises(ValueError, match=r"^a/b\.mat: .*LabelMap"):
        read_label_map(contents, ("LabelMap",), "a/b.mat")
