import json
import pathlib
import tarfile

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

SYNSETS = ("n01440764", "n01751748", "n09193705")
WORDS = ("tench, Tinca tinca", "sea snake", "alp")
# Classes of the first validation photographs, as the official list has them.
VAL = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729")


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("imagenet")


@pytest.fixture
def tree(tmp_path, preparing):
    root = tmp_path / "tree"
    for k, synset in enumerate(SYNSETS):
        for i in range(2 + k):
            path = root / f"train/{synset}/{synset}_{i}.JPEG"
            preparing.write_image(path, (6 + i, 8), 10 * k + i)
        preparing.write_image(
            root / f"val/{synset}/ILSVRC2012_val_0000010{k}.JPEG", (5, 9), 90 + k
        )
    return root


def prepare(module, preparing, raw, tmp_path, *flags):
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}", *flags]
    return preparing.main(module.ImageNet, arguments)


def check_train(tree, tmp_path, preparing):
    folder = tmp_path / "imagenet/1.0.0"
    records = preparing.read_records(folder, "train")
    assert [(int(x["label"]), x["image_id"].decode()) for x in records] == [
        (k, f"{synset}_{i}") for k, synset in enumerate(SYNSETS) for i in range(2 + k)
    ]
    for x in records:
        name = x["image_id"].decode()
        file = tree / f"train/{name.partition('_')[0]}/{name}.JPEG"
        assert x["image"] == file.read_bytes()
    return json.loads((folder / "metadata.json").read_text())


def test_class_folders_become_sorted_labels(tree, tmp_path, module, preparing):
    text = "".join(f"{s} {w}\n" for s, w in zip(SYNSETS, WORDS, strict=True))
    (tree / "LOC_synset_mapping.txt").write_text(text)
    assert prepare(module, preparing, tree, tmp_path) == 0
    metadata = check_train(tree, tmp_path, preparing)
    assert metadata["synsets"] == list(SYNSETS)
    assert metadata["classes"] == ["tench", "sea snake", "alp"]
    val = preparing.read_records(tmp_path / "imagenet/1.0.0", "val")
    assert [int(x["label"]) for x in val] == [0, 1, 2]


def write_archives(tree, tmp_path, preparing, numbers):
    """Write the two official tars: a tar of tars, and one flat tar."""
    raw = tmp_path / "downloads"
    for synset in SYNSETS:
        preparing.pack(tree / "train" / synset, tmp_path / f"classes/{synset}.tar")
    preparing.pack(tmp_path / "classes", raw / "ILSVRC2012_img_train.tar")
    flat = tmp_path / "flat"
    for number in numbers:
        path = flat / f"ILSVRC2012_val_{number:08d}.JPEG"
        preparing.write_image(path, (5, 9), number)
    preparing.pack(flat, raw / "ILSVRC2012_img_val.tar")
    return raw


def test_official_tars_need_no_development_kit(tree, tmp_path, module, preparing):
    raw = write_archives(tree, tmp_path, preparing, (1, 2))
    assert prepare(module, preparing, raw, tmp_path) == 0
    metadata = check_train(tree, tmp_path, preparing)
    assert metadata["classes"] == list(SYNSETS)
    records = preparing.read_records(tmp_path / "imagenet/1.0.0", "val")
    assert [SYNSETS[int(x["label"])] for x in records] == list(VAL[:2])
    for x in records:
        file = tmp_path / f"flat/{x['image_id'].decode()}.JPEG"
        assert x["image"] == file.read_bytes()


def test_the_development_kit_decides_where_it_is_there(
    tree, tmp_path, module, preparing
):
    raw = write_archives(tree, tmp_path, preparing, (1, 2, 3))
    # Numbers of the kit are no train ids: here in reverse order.
    rows = [
        {"ILSVRC2012_ID": 3 - k, "WNID": synset, "words": WORDS[k]}
        for k, synset in enumerate(SYNSETS)
    ]
    dtype = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    table = np.array([tuple(row.values()) for row in rows], dtype)
    kit = tmp_path / "kit/ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    scipy.io.savemat(kit / "meta.mat", {"synsets": table.reshape(-1, 1)})
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("3\n3\n1\n")
    with tarfile.open(raw / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(kit.parent, kit.parent.name)
    assert prepare(module, preparing, raw, tmp_path) == 0
    metadata = check_train(tree, tmp_path, preparing)
    assert metadata["classes"] == ["tench", "sea snake", "alp"]
    records = preparing.read_records(tmp_path / "imagenet/1.0.0", "val")
    found = {x["image_id"].decode()[-1]: int(x["label"]) for x in records}
    assert found == {"1": 0, "2": 0, "3": 2}


def test_the_list_of_tfds_is_the_official_one():
    file = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    lines = pathlib.Path(file).read_text().split()
    assert tuple(lines[: len(VAL)]) == VAL
    classes, counts = np.unique(lines, return_counts=True)
    assert len(classes) == 1000 and set(counts.tolist()) == {50}


def test_another_set_in_this_layout_gets_its_own_folder(
    tree, tmp_path, module, preparing, capsys
):
    assert prepare(module, preparing, tree, tmp_path, "--name=flowers") == 0
    assert "flowers is prepared in" in capsys.readouterr().out
    assert (tmp_path / "flowers/1.0.0/dataset_info.json").is_file()
    records = preparing.read_records(tmp_path / "flowers/1.0.0", "train")
    assert len(records) == 9
    assert prepare(module, preparing, tree, tmp_path, "--name=../x") == 1
    assert "--name must be lower-case" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["truncated", "class", "flat name", "no val"])
def test_faults_are_named(fault, tree, tmp_path, module, preparing, capsys):
    path = tree / f"val/{SYNSETS[1]}/ILSVRC2012_val_00000101.JPEG"
    expected = {
        "truncated": f"{path}: cannot be decoded",
        "class": "'n09999999' is not there",
        "flat name": "photographs that lie in no class folder must be named",
        "no val": "does not look like imagenet",
    }
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif fault == "class":
        path.parent.rename(path.parents[1] / "n09999999")
    elif fault == "flat name":
        (tree / "val").rename(tree / "old")
        preparing.write_image(tree / "val/cat.jpg")
    else:
        (tree / "val").rename(tree / "old")
    assert prepare(module, preparing, tree, tmp_path) == 1
    error = capsys.readouterr().err
    assert expected[fault] in error and error.count("\n") == 1
