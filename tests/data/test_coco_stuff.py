import csv
import shutil

import numpy as np
import pytest

from segnext_jax.datasets import get_spec

SPEC = get_spec("coco_stuff")
# First raw id, last raw id, first train id of each run between the holes.
RUNS = (
    *((0, 10, 0), (12, 24, 11), (26, 27, 24), (30, 43, 26), (45, 64, 40)),
    *((66, 66, 60), (69, 69, 61), (71, 81, 62), (83, 89, 73), (91, 181, 80)),
)
TABLE = np.full(256, 254)
TABLE[255] = 255
for first, last, start in RUNS:
    TABLE[first : last + 1] = np.arange(start, start + last - first + 1)
LEGAL = [raw for raw in range(256) if TABLE[raw] != 254]


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("coco_stuff")


@pytest.fixture
def tree(tmp_path, preparing):
    root = tmp_path / "tree"
    for split in ("train", "val"):
        for k in range(3):
            preparing.write_image(root / f"images/{split}2017/{k:012d}.jpg", (14, 15))
            mask = root / f"annotations/{split}2017/{k:012d}.png"
            preparing.write_mask(mask, LEGAL, (14, 15), k)
    return root


def test_the_table_is_the_official_one(module, reference):
    assert module.CocoStuff.train_id_of == {raw: int(TABLE[raw]) for raw in LEGAL}
    with (reference / "classes/cocostuff_id_map.csv").open() as lines:
        # 255 stands at the eleven values that do not occur.
        rows = [row for row in csv.DictReader(lines) if row["train_id"] != "255"]
    official = {int(row["png_value"]): int(row["train_id"]) for row in rows}
    assert module.CocoStuff.train_id_of == official | {255: 255}


@pytest.mark.parametrize("layout", ["tree", "archives"])
def test_tree_and_archives_give_the_same_records(
    layout, tree, tmp_path, module, preparing
):
    raw = tree
    if layout == "archives":
        # As downloaded: photographs and masks lie in folders of one name.
        raw = tmp_path / "downloads"
        for split in ("train2017", "val2017"):
            shutil.copytree(tree / "images" / split, tmp_path / "to" / split / split)
            preparing.pack(tmp_path / "to" / split, raw / f"{split}.zip")
        preparing.pack(tree / "annotations", raw / "stuffthingmaps_trainval2017.zip")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.CocoStuff, arguments) == 0
    for split in ("train", "val"):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert [x["image_id"] for x in examples] == [f"{k:012d}" for k in range(3)]
        for x in examples:
            image = tree / f"images/{split}2017/{x['image_id']}.jpg"
            assert x["image"] == image.read_bytes()
            mask = preparing.decode(tree / f"annotations/{split}2017", x["image_id"])
            np.testing.assert_array_equal(x["label"], TABLE[mask])


def test_converted_masks_alone_are_taken_as_they_are(tree, tmp_path, module, preparing):
    for path in sorted(tree.rglob("*.png")):
        path.unlink()
        converted = path.with_name(f"{path.stem}_labelTrainIds.png")
        preparing.write_mask(converted, (*range(171), 255), (14, 15))
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.CocoStuff, arguments) == 0
    examples = preparing.read_split(SPEC, "train", tmp_path)
    assert [x["image_id"] for x in examples] == [f"{k:012d}" for k in range(3)]
    mask = preparing.decode(tree / "annotations/train2017", f"{0:012d}_labelTrainIds")
    np.testing.assert_array_equal(examples[0]["label"], mask)


def test_a_hole_in_the_table_is_refused_by_file(
    tree, tmp_path, module, preparing, capsys
):
    mask = tree / f"annotations/val2017/{1:012d}.png"
    preparing.write_mask(mask, (3, 68), (14, 15))
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.CocoStuff, arguments) == 1
    error = capsys.readouterr().err
    assert str(mask) in error and "found [68]" in error


def test_real_samples_equal_the_converted_masks(
    tmp_path, module, preparing, shared_data
):
    raw = shared_data("samples/cocostuff164k")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.CocoStuff, arguments) == 0
    for split, count in (("train", 13), ("val", 8)):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert len(examples) == count
        for x in examples:
            image = raw / f"images/{split}2017/{x['image_id']}.jpg"
            assert x["image"] == image.read_bytes()
            converted = preparing.decode(
                raw / f"annotations/{split}2017", f"{x['image_id']}_labelTrainIds"
            )
            np.testing.assert_array_equal(x["label"], converted)
