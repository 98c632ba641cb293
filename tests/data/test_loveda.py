import shutil

import numpy as np
import pytest

from segnext_jax.datasets import get_spec

SPEC = get_spec("loveda")


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("loveda")


@pytest.fixture
def tree(tmp_path, preparing):
    root, number = tmp_path / "tree", 8
    for split in ("Train", "Val"):
        for scene in ("Rural", "Urban"):
            for _ in range(2):
                base = root / split / scene
                preparing.write_image(base / f"images_png/{number}.png", seed=number)
                mask = base / f"masks_png/{number}.png"
                preparing.write_mask(mask, range(8), seed=number)
                number += 1
    return root


@pytest.mark.parametrize("layout", ["tree", "zips"])
def test_tree_and_archives_give_the_same_records(
    layout, tree, tmp_path, module, preparing
):
    raw = tree
    if layout == "zips":
        raw = tmp_path / "downloads"
        for split in ("Train", "Val"):
            shutil.copytree(tree / split, tmp_path / "to" / split / split)
            preparing.pack(tmp_path / "to" / split, raw / f"{split}.zip")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Loveda, arguments) == 0
    for split, numbers in (("train", range(8, 12)), ("val", range(12, 16))):
        examples = preparing.read_split(SPEC, split, tmp_path)
        # The order is that of the numbers, of both scenes.
        assert [x["image_id"] for x in examples] == [str(k) for k in numbers]
        for x in examples:
            (image,) = tree.rglob(f"images_png/{x['image_id']}.png")
            assert x["image"] == image.read_bytes()
            mask = preparing.decode(image.parent.with_name("masks_png"), x["image_id"])
            np.testing.assert_array_equal(x["label"], (mask.astype(int) - 1) % 256)


def test_a_number_of_both_scenes_is_refused(tree, tmp_path, module, preparing, capsys):
    for kind in ("images_png", "masks_png"):
        shutil.copy(
            tree / f"Train/Rural/{kind}/8.png", tree / f"Train/Urban/{kind}/8.png"
        )
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Loveda, arguments) == 1
    assert "must be unique in a split: '8' occurs twice" in capsys.readouterr().err


def test_real_samples(tmp_path, module, preparing, shared_data):
    samples = shared_data("samples/loveda/Train/Rural")
    raw = tmp_path / "raw"
    for k, folder in enumerate(
        ("Train/Rural", "Train/Urban", "Val/Rural", "Val/Urban")
    ):
        for kind in ("images_png", "masks_png"):
            (raw / folder / kind).mkdir(parents=True)
            name = f"{k % 3}.png"
            (raw / folder / kind / f"{k}.png").symlink_to(samples / kind / name)
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Loveda, arguments) == 0
    examples = preparing.read_split(SPEC, "train", tmp_path)
    seen = set()
    for x in examples:
        assert x["image"] == (samples / f"images_png/{x['image_id']}.png").read_bytes()
        mask = preparing.decode(samples / "masks_png", x["image_id"])
        seen |= set(np.unique(mask).tolist())
        np.testing.assert_array_equal(x["label"], (mask.astype(int) - 1) % 256)
    assert seen <= {1, 2, 3, 4, 6, 7} and len(seen) >= 4
