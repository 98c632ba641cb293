import shutil

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from segnext_jax.datasets import get_spec

SPEC = get_spec("voc2012")
LISTS = {"train": ["2007_1", "2008_2"], "val": ["2007_3", "2009_4"]}
SBD = {"train": ["2008_2", "2008_7"], "val": ["2009_4", "2010_8"]}
SIZE = (9, 11)


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("voc2012")


def mask_of(name, kind):
    """Draw a mask that differs by photograph and by source; SBD has no border."""
    seed = sum(name.encode()) + len(kind)
    ids = [*range(21), 255] if kind == "voc" else list(range(21))
    return np.random.default_rng(seed).choice(np.array(ids, np.uint8), SIZE)


def write_palette(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask, "L").convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([(37 * k) % 256 for k in range(768)])
    image.save(path)


@pytest.fixture
def voc(tmp_path, preparing):
    root = tmp_path / "tree/VOCdevkit/VOC2012"
    lists = LISTS | {"trainval": LISTS["train"] + LISTS["val"]}
    for split, names in lists.items():
        path = root / f"ImageSets/Segmentation/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    for name in {x for names in (*LISTS.values(), *SBD.values()) for x in names}:
        preparing.write_image(root / f"JPEGImages/{name}.jpg", SIZE, sum(name.encode()))
    for name in lists["trainval"]:
        write_palette(root / f"SegmentationClass/{name}.png", mask_of(name, "voc"))
    return root


@pytest.fixture
def sbd(tmp_path):
    root = tmp_path / "tree/benchmark_RELEASE/dataset"
    (root / "cls").mkdir(parents=True)
    for split, names in SBD.items():
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            content = {
                "Boundaries": np.zeros((20, 1)),
                "Segmentation": mask_of(name, "sbd"),
                "CategoriesPresent": np.arange(3),
            }
            scipy.io.savemat(root / f"cls/{name}.mat", {"GTcls": content})
    return root


def check(splits, root, preparing):
    """Compare with the drawn masks: VOC's for VOC's photographs, else SBD's."""
    for split, names in splits.items():
        examples = preparing.read_split(SPEC, split, root.parents[2])
        assert [x["image_id"] for x in examples] == names
        for x in examples:
            kind = "voc" if x["image_id"] in sum(LISTS.values(), []) else "sbd"
            np.testing.assert_array_equal(x["label"], mask_of(x["image_id"], kind))
            photograph = root / f"JPEGImages/{x['image_id']}.jpg"
            assert x["image"] == photograph.read_bytes()


SPLITS = {
    "train": ["2007_1", "2008_2"],
    "val": ["2007_3", "2009_4"],
    "trainval": ["2007_1", "2008_2", "2007_3", "2009_4"],
    "trainaug": ["2007_1", "2008_2", "2008_7", "2010_8"],
}


@pytest.mark.parametrize("layout", ["tree", "archives"])
def test_all_four_splits_from_tree_and_archives(
    layout, voc, sbd, tmp_path, module, preparing
):
    raw = tmp_path / "tree"
    if layout == "archives":
        raw = tmp_path / "downloads"
        for top, archive in (
            ("VOCdevkit", "VOCtrainval_11-May-2012.tar"),
            ("benchmark_RELEASE", "benchmark.tgz"),
        ):
            shutil.copytree(tmp_path / "tree" / top, tmp_path / "to" / top / top)
            preparing.pack(tmp_path / "to" / top, raw / archive)
    target = voc.parents[2]
    arguments = [f"--raw_dir={raw}", f"--data_dir={target}"]
    assert preparing.main(module.Voc2012, arguments) == 0
    check(SPLITS, voc, preparing)


def test_segmentation_class_aug_stands_in_for_sbd(voc, tmp_path, module, preparing):
    for name in {x for names in SBD.values() for x in names}:
        path = voc / f"SegmentationClassAug/{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), mask_of(name, "sbd"))
    arguments = [f"--raw_dir={tmp_path}/tree", f"--data_dir={voc.parents[2]}"]
    assert preparing.main(module.Voc2012, arguments) == 0
    check(SPLITS, voc, preparing)


def test_without_sbd_the_missing_split_is_named(voc, module, preparing, capsys):
    target = voc.parents[2]
    arguments = [f"--raw_dir={voc}", f"--data_dir={target}"]
    assert preparing.main(module.Voc2012, arguments) == 0
    out = capsys.readouterr().out
    assert "note: the split trainaug is left out" in out and "benchmark.tgz" in out
    assert "trainaug" not in out.splitlines()[-1]
    check({k: v for k, v in SPLITS.items() if k != "trainaug"}, voc, preparing)


@pytest.mark.parametrize("fault", ["no mat", "not a struct", "too large"])
def test_faults_of_sbd_name_the_file(fault, voc, sbd, module, preparing, capsys):
    path = sbd / "cls/2008_7.mat"
    if fault == "no mat":
        path.unlink()
    elif fault == "not a struct":
        scipy.io.savemat(path, {"Other": 3})
    else:
        mask = np.full(SIZE, 21, np.uint8)
        scipy.io.savemat(path, {"GTcls": {"Segmentation": mask}})
    arguments = [f"--raw_dir={voc.parents[1]}", f"--data_dir={voc.parents[2]}"]
    assert preparing.main(module.Voc2012, arguments) == 1
    error = capsys.readouterr().err
    expected = {
        "no mat": "has no cls/2008_7.mat",
        "not a struct": "2008_7.mat: must be a MATLAB file with GTcls.Segmentation",
        "too large": "found [21]",
    }
    assert expected[fault] in error and error.count("\n") == 1


def test_trainaug_is_the_published_list(module, shared_data):
    folder = shared_data("samples/sbd_vocaug")
    published = (folder / "train_aug.txt").read_text().split()
    val = (folder / "seg11valid.txt").read_text().split()
    assert len(published) == 10582 and not set(val) & set(published)
    # VOC's train photographs lie in part in SBD, and so do those of val.
    train, sbd = published[:3000], published[1500:] + val[:500]
    assert module.trainaug_ids(train, val, sbd) == sorted(published)


def test_real_samples(tmp_path, module, preparing, shared_data):
    samples = shared_data("samples/voc2012")
    root = tmp_path / "raw/VOC2012"
    real = samples / "VOCdevkit/VOC2012"
    other = samples / "labelme_relabelled/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
        for path in (*(real / folder).iterdir(), *(other / folder).iterdir()):
            (root / folder / path.name).symlink_to(path)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    val = (real / "ImageSets/Segmentation/val.txt").read_text()
    train = (other / "ImageSets/Segmentation/trainval.txt").read_text()
    for split, text in (("train", train), ("val", val), ("trainval", train + val)):
        (lists / f"{split}.txt").write_text(text)
    arguments = [f"--raw_dir={tmp_path}/raw", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Voc2012, arguments) == 0
    assert len(preparing.read_split(SPEC, "trainval", tmp_path)) == 7
    examples = preparing.read_split(SPEC, "val", tmp_path)
    assert len(examples) == 4
    for x in examples:
        assert x["image"] == (real / f"JPEGImages/{x['image_id']}.jpg").read_bytes()
        mask = preparing.decode(real / "SegmentationClass", x["image_id"])
        np.testing.assert_array_equal(x["label"], mask)
        assert 255 in mask and 0 in mask
