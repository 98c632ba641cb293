import csv

import numpy as np
import pytest

from segnext_jax.datasets import get_spec

SPEC = get_spec("cityscapes")
# The evaluated ids as cityscapesScripts names them, in the order of the train ids.
OFFICIAL = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10},
    **{24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18},
}


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("cityscapes")


@pytest.fixture
def tree(tmp_path, preparing):
    root = tmp_path / "tree"
    for split, cities in (("train", ("aachen", "zurich")), ("val", ("ulm",))):
        for city in cities:
            for k in range(2):
                stem = f"{city}_000000_00000{k}"
                ids = (*range(34), 255)
                image = root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png"
                mask = root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png"
                preparing.write_image(image, (10 + k, 9), k)
                preparing.write_mask(mask, ids, (10 + k, 9), k)
                # Files that every download holds beside the masks.
                other = mask.with_name(f"{stem}_gtFine_instanceIds.png")
                preparing.write_mask(other, (1, 2), (10 + k, 9), k)
    return root


def expected(mask):
    return np.vectorize(lambda raw: OFFICIAL.get(raw, 255))(mask)


@pytest.mark.parametrize("layout", ["tree", "two zips", "images unpacked"])
def test_tree_and_archives_give_the_same_records(
    layout, tree, tmp_path, module, preparing
):
    raw = tree
    if layout != "tree":
        raw = tmp_path / "downloads"
        for kind in ("leftImg8bit", "gtFine"):
            (tmp_path / kind).mkdir()
            (tree / kind).rename(tmp_path / kind / kind)
            preparing.pack(tmp_path / kind, raw / f"{kind}_trainvaltest.zip")
            (tmp_path / kind / kind).rename(tree / kind)
    if layout == "images unpacked":
        (raw / "leftImg8bit_trainvaltest.zip").unlink()
        (raw / "leftImg8bit").symlink_to(tree / "leftImg8bit")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Cityscapes, arguments) == 0
    for split, count in (("train", 4), ("val", 2)):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert len(examples) == count
        for x in examples:
            city = x["image_id"].partition("_")[0]
            image = tree / f"leftImg8bit/{split}/{city}/{x['image_id']}_leftImg8bit.png"
            assert x["image"] == image.read_bytes()
            folder = tree / f"gtFine/{split}/{city}"
            mask = preparing.decode(folder, f"{x['image_id']}_gtFine_labelIds")
            np.testing.assert_array_equal(x["label"], expected(mask))


def test_masks_of_train_ids_are_taken_where_there_are_no_raw_ids(
    tree, tmp_path, module, preparing
):
    for path in tree.rglob("*_labelIds.png"):
        path.unlink()
        name = path.name.replace("labelIds", "labelTrainIds")
        preparing.write_mask(path.with_name(name), (*range(19), 255), (10, 9), 5)
        preparing.write_image(
            tree
            / "leftImg8bit"
            / path.parent.relative_to(tree / "gtFine")
            / path.name.replace("gtFine_labelIds", "leftImg8bit"),
            (10, 9),
        )
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Cityscapes, arguments) == 0
    (first, _) = preparing.read_split(SPEC, "val", tmp_path)
    mask = preparing.decode(
        tree / "gtFine/val/ulm", f"{first['image_id']}_gtFine_labelTrainIds"
    )
    np.testing.assert_array_equal(first["label"], mask)


def test_the_table_is_the_official_one(module, reference):
    with (reference / "classes/cityscapes_labels.csv").open() as lines:
        table = {int(row["id"]): int(row["trainId"]) for row in csv.DictReader(lines)}
    assert len(table) in (34, 35)
    for raw, train_id in table.items():
        assert module.Cityscapes.train_id_of[raw % 256] == train_id % 256


def test_half_a_download_is_refused(tree, tmp_path, module, preparing, capsys):
    arguments = [f"--raw_dir={tree / 'gtFine'}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Cityscapes, arguments) == 1
    assert "does not look like cityscapes" in capsys.readouterr().err
    assert preparing.main(module.Cityscapes, [f"--data_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "must be downloaded by hand" in error
    assert "https://www.cityscapes-dataset.com/downloads" in error


def test_real_samples(tmp_path, module, preparing, shared_data):
    samples = shared_data("samples/cityscapes")
    raw = tmp_path / "raw"
    for kind in ("leftImg8bit", "gtFine"):
        (raw / kind).mkdir(parents=True)
        (raw / kind / "train").symlink_to(samples / kind / "train")
        (raw / kind / "val").symlink_to(samples / "tiny_256x128" / kind / "val")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Cityscapes, arguments) == 0
    train = preparing.read_split(SPEC, "train", tmp_path)
    assert len(train) == 8 and train[0]["label"].shape == (1024, 2048)
    for x in train[:3]:
        folder = samples / "gtFine/train/aachen"
        mask = preparing.decode(folder, f"{x['image_id']}_gtFine_labelIds")
        table = np.full(256, 255)
        for raw_id, train_id in OFFICIAL.items():
            table[raw_id] = train_id
        np.testing.assert_array_equal(x["label"], table[mask])
    (val,) = preparing.read_split(SPEC, "val", tmp_path)
    folder = raw / "gtFine/val/frankfurt"
    trained = preparing.decode(folder, f"{val['image_id']}_gtFine_labelTrainIds")
    # Both masks of this sample were made smaller apart from each other.
    assert (val["label"] == trained).mean() > 0.997
