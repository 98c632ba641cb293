import shutil

import numpy as np
import pytest

from segnext_jax.datasets import get_spec

SPEC = get_spec("ade20k")


@pytest.fixture
def tree(tmp_path, preparing):
    root = tmp_path / "tree" / "ADEChallengeData2016"
    for split, name in (("train", "training"), ("val", "validation")):
        for k in range(3):
            stem = f"ADE_{split}_{k + 1:08d}"
            size = (13 + k, 17)
            preparing.write_image(root / f"images/{name}/{stem}.jpg", size, k)
            preparing.write_mask(
                root / f"annotations/{name}/{stem}.png", range(151), size, k
            )
    return tmp_path / "tree"


@pytest.mark.parametrize("layout", ["parent", "itself", "deep", "folder of zip", "zip"])
def test_tree_and_archive_give_the_same_records(layout, tree, tmp_path, preparing):
    raw = tree
    if layout == "itself":
        raw = tree / "ADEChallengeData2016"
    elif layout == "deep":
        raw = tmp_path / "a"
        shutil.copytree(tree, raw / "b/c")
    elif "zip" in layout:
        archive = tmp_path / "archives/ADEChallengeData2016.zip"
        preparing.pack(tree, archive)
        raw = archive if layout == "zip" else archive.parent
    module = preparing.load("ade20k")
    assert (
        preparing.main(module.Ade20k, [f"--raw_dir={raw}", f"--data_dir={tmp_path}"])
        == 0
    )
    for split, name in (("train", "training"), ("val", "validation")):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert [x["image_id"] for x in examples] == [
            f"ADE_{split}_{k:08d}" for k in (1, 2, 3)
        ]
        for example in examples:
            base = tree / "ADEChallengeData2016"
            photograph = base / f"images/{name}/{example['image_id']}.jpg"
            assert example["image"] == photograph.read_bytes()
            raw_ids = np.array(
                preparing.decode(base / f"annotations/{name}", example["image_id"])
            )
            # 0 to 255, k to k - 1: subtraction of one in a byte.
            np.testing.assert_array_equal(
                example["label"], (raw_ids.astype(int) - 1) % 256
            )


def test_real_samples_keep_bytes_and_ids(tmp_path, preparing, shared_data):
    raw = shared_data("samples/ade20k")
    module = preparing.load("ade20k")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Ade20k, arguments) == 0
    names = {"train": "training", "val": "validation"}
    for split, count in (("train", 1), ("val", 3)):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert len(examples) == count
        for x in examples:
            base = raw / "ADEChallengeData2016"
            file = base / "images" / names[split] / f"{x['image_id']}.jpg"
            assert x["image"] == file.read_bytes()
            raw_ids = preparing.decode(
                base / "annotations" / names[split], x["image_id"]
            )
            np.testing.assert_array_equal(x["label"], (raw_ids.astype(int) - 1) % 256)
