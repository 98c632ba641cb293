import json

import pytest

from segnext_jax.config import base_config
from segnext_jax.datasets import get_spec
from segnext_jax.datasets.class_table import distinct_colours
from segnext_jax.datasets.resolve import prepared_table, resolve_spec
from segnext_jax.images.masks import mask_reader


@pytest.fixture
def data(tmp_path):
    data = base_config().data
    data.name = "folder"
    data.folder = str(tmp_path)
    data.data_dir = str(tmp_path / "prepared")
    return data


def test_a_set_of_the_table_is_itself(data):
    data.name = "camvid"
    assert resolve_spec(data) is get_spec("camvid")


def test_a_folder_names_its_classes_itself(data, tmp_path):
    (tmp_path / "classes.txt").write_text("road 1 2 3\nsky 4 5 6\nignore 0 0 0\n")
    spec = resolve_spec(data)
    assert (spec.name, spec.classes) == ("folder", ("road", "sky"))
    assert spec.colours == ((1, 2, 3), (4, 5, 6))
    assert (spec.train_split, spec.val_split, spec.ignore_label) == (
        *("train", "val"),
        255,
    )
    data.mask_values = "colours"
    assert mask_reader(data).ignore_colours == ((0, 0, 0),)


def test_a_folder_that_is_not_there(data):
    data.folder = "/nowhere"
    with pytest.raises(FileNotFoundError, match="must name a folder: /nowhere does"):
        resolve_spec(data)


def test_the_configuration_needs_no_folder(data):
    data.folder = "/nowhere"
    data.classes = ("a", "b")
    assert resolve_spec(data).classes == ("a", "b")
    assert resolve_spec(data).colours == distinct_colours(2)
    data.colours = ((1, 1, 1), (2, 2, 2))
    assert resolve_spec(data).colours == ((1, 1, 1), (2, 2, 2))
    data.classes = ("a", "b", "c")
    with pytest.raises(ValueError, match="one colour per class: got 2 colours and 3"):
        resolve_spec(data)


def test_a_prepared_set_of_ones_own_is_found_by_its_metadata(data, tmp_path):
    folder = tmp_path / "prepared" / "my_set" / "1.0.0"
    folder.mkdir(parents=True)
    data.name = "my_set"
    with pytest.raises(ValueError, match=r"prepared in .*my_set/1\.0\.0: got 'my_set'"):
        resolve_spec(data)
    (folder / "dataset_info.json").write_text("{}")
    metadata = {"classes": ["x", "y"], "colours": [[1, 2, 3], [4, 5, 6]]}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    spec = resolve_spec(data)
    assert (spec.name, spec.classes) == ("my_set", ("x", "y"))
    assert spec.colours == ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("contents", [b"", b"[1]", b"{}", b'{"classes": [1]}', b"\xff"])
def test_damaged_metadata_are_refused_in_one_sentence(tmp_path, contents):
    (tmp_path / "metadata.json").write_bytes(contents)
    with pytest.raises(
        ValueError, match="must be a whole prepared data set: .* Delete"
    ):
        prepared_table(tmp_path)
