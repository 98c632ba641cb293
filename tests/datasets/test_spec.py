import csv
import dataclasses
import pathlib
import subprocess
import sys

import pytest

from segnext_jax.datasets import (
    SPECS,
    DatasetSpec,
    default_data_dir,
    get_spec,
    prepared_dir,
)

TWO = DatasetSpec("two", ("a", "b"), ((0, 0, 0), (255, 255, 255)))


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [
        ("ade20k", 150),
        ("camvid", 11),
        ("cityscapes", 19),
        ("coco_stuff", 171),
        ("isaid", 16),
        ("loveda", 7),
        ("pascal_context_59", 59),
        ("pascal_context_60", 60),
        ("shapes", 7),
        ("voc2012", 21),
    ],
)
def test_number_of_classes_is_the_papers(name, num_classes):
    assert get_spec(name).num_classes == num_classes


def test_every_spec_is_found_under_its_own_name_and_ignores_255():
    assert len(SPECS) == 10
    for name, spec in SPECS.items():
        assert spec.name == name
        assert spec.ignore_label == 255


@pytest.mark.parametrize(
    ("name", "train_id", "class_name", "colour"),
    [
        ("ade20k", 0, "wall", (120, 120, 120)),
        ("ade20k", 12, "person", (150, 5, 61)),
        ("ade20k", 149, "flag", (92, 0, 255)),
        ("cityscapes", 13, "car", (0, 0, 142)),
        ("cityscapes", 18, "bicycle", (119, 11, 32)),
        ("voc2012", 15, "person", (192, 128, 128)),
        ("coco_stuff", 170, "wood", (64, 64, 0)),
        ("isaid", 15, "Harbor", (0, 100, 155)),
        ("loveda", 6, "agricultural", (255, 195, 128)),
        ("pascal_context_60", 0, "background", (120, 120, 120)),
        ("pascal_context_59", 0, "aeroplane", (180, 120, 120)),
        ("camvid", 10, "bicyclist", (0, 128, 192)),
    ],
)
def test_train_ids_follow_the_official_order(name, train_id, class_name, colour):
    spec = get_spec(name)
    assert (spec.classes[train_id], spec.colours[train_id]) == (class_name, colour)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("ade20k", "ade20k150"),
        ("camvid", "camvid11"),
        ("cityscapes", "cityscapes19"),
        ("coco_stuff", "cocostuff171"),
        ("isaid", "isaid16"),
        ("loveda", "loveda7"),
        ("pascal_context_59", "pascal_context59"),
        ("pascal_context_60", "pascal_context60"),
        ("voc2012", "voc21"),
    ],
)
def test_tables_equal_the_official_ones(name, table, reference):
    with (reference / "classes" / f"{table}.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["name"] != "void"]
    spec = get_spec(name)
    assert spec.classes == tuple(row["name"] for row in rows)
    assert spec.colours == tuple(
        (int(row["r"]), int(row["g"]), int(row["b"])) for row in rows
    )


def test_unknown_name_lists_the_known_ones_and_guesses():
    with pytest.raises(ValueError, match=r"'camvd'\. Did you mean 'camvid'\?") as error:
        get_spec("camvd")
    assert all(name in str(error.value) for name in SPECS)
    with pytest.raises(ValueError, match="unknown data set 'zzz'. Known"):
        get_spec("zzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Two"}, "lower-case"),
        ({"name": "../two"}, "lower-case"),
        ({"classes": ()}, "at least one class"),
        ({"classes": ("a", "")}, "no empty class name"),
        ({"classes": ("a", "a")}, "repeated are a"),
        ({"colours": ((0, 0, 0),)}, "1 colours and 2 classes"),
        ({"colours": ((0, 0, 0), (0, 0, 256))}, r"class 'b'.*\(0, 0, 256\)"),
        ({"ignore_label": 1}, r"\[2, 255\]"),
        ({"ignore_label": 256}, r"\[2, 255\]"),
    ],
)
def test_contradictory_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TWO, **change)


def test_data_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    assert prepared_dir(TWO) == tmp_path / "two" / "1.0.0"
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_data_dir() == pathlib.Path("/home/somebody/tensorflow_datasets")
    assert prepared_dir(TWO, "~/sets") == pathlib.Path("/home/somebody/sets/two/1.0.0")


def test_importing_what_workers_import_leaves_jax_and_tensorflow_out():
    command = (
        "import sys, segnext_jax.datasets, segnext_jax.images.decode, "
        "segnext_jax.pipeline, segnext_jax.images.pictures; "
        "print([m for m in ('jax', 'flax', 'tensorflow', 'tensorflow_datasets') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
