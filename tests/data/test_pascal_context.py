import csv
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segnext_jax.datasets import get_spec
from segnext_jax.preparation.command import main
from segnext_jax.preparation.pascal_context import IDS_OF_459, merge_459

SPECS = {n: get_spec(f"pascal_context_{n}") for n in (59, 60)}
NAMES = {"train": ["2008_2", "2009_1"], "val": ["2008_9", "2010_3"]}
SIZE = (25, 27)


@pytest.fixture(scope="module", params=[59, 60])
def builder(request, preparing):
    module = preparing.load(f"pascal_context_{request.param}")
    return request.param, getattr(module, f"PascalContext{request.param}")


def raw_mask(name):
    """Draw all of the 459 ids."""
    mask = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16) % 460
    return np.random.default_rng(sum(name.encode())).permutation(mask).reshape(SIZE)


def expected(name, num_classes):
    merged = np.zeros(460, int)
    for position, raw in enumerate(sorted(IDS_OF_459)):
        merged[raw] = position
    mask = merged[raw_mask(name)]
    return mask if num_classes == 60 else np.where(mask == 0, 255, mask - 1)


def write_tree(root, preparing, lists):
    for split, names in NAMES.items():
        path = root / f"VOCdevkit/VOC2010/ImageSets/{lists}/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image = root / f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg"
            preparing.write_image(image, SIZE, sum(name.encode()))


def write_mats(folder):
    folder.mkdir(parents=True)
    for name in sum(NAMES.values(), []):
        scipy.io.savemat(folder / f"{name}.mat", {"LabelMap": raw_mask(name)})


@pytest.mark.parametrize("layout", ["mat", "archives", "merged"])
def test_every_kind_of_mask_gives_the_same_labels(layout, builder, tmp_path, preparing):
    num_classes, cls = builder
    raw = tmp_path / "tree"
    lists = "Main" if layout == "archives" else "SegmentationContext"
    write_tree(raw, preparing, lists)
    if layout == "merged":
        for name in sum(NAMES.values(), []):
            path = raw / f"VOCdevkit/VOC2010/SegmentationClassContext/{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(expected(name, 60).astype(np.uint8)).save(path)
    else:
        write_mats(raw / "trainval")
    if layout == "archives":
        raw = tmp_path / "downloads"
        shutil.move(tmp_path / "tree/trainval", tmp_path / "mats/trainval")
        preparing.pack(tmp_path / "tree", raw / "VOCtrainval_03-May-2010.tar")
        preparing.pack(tmp_path / "mats", raw / "trainval.tar.gz")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    assert main(cls, arguments) == 0
    for split, names in NAMES.items():
        examples = preparing.read_split(SPECS[num_classes], split, tmp_path)
        assert [x["image_id"] for x in examples] == names
        for x in examples:
            np.testing.assert_array_equal(
                x["label"], expected(x["image_id"], num_classes)
            )
            image = f"tree/VOCdevkit/VOC2010/JPEGImages/{x['image_id']}.jpg"
            assert x["image"] == (tmp_path / image).read_bytes()


def test_the_ids_and_their_names_are_the_official_ones(reference):
    with (reference / "classes/pascal_context_459_to_60.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert IDS_OF_459 == tuple(int(row["id459"]) for row in rows)
    assert SPECS[60].classes == tuple(row["mmseg_name"] for row in rows)


def test_an_id_beyond_the_459_is_refused():
    with pytest.raises(ValueError, match=r"x\.mat: ids .* \[0, 459\]: found 460"):
        merge_459(np.array([[460, 1]], np.uint16), "x.mat")


@pytest.mark.parametrize("fault", ["missing", "empty", "float"])
def test_faulty_masks_are_named(fault, builder, tmp_path, preparing, capsys):
    write_tree(tmp_path / "tree", preparing, "Main")
    write_mats(tmp_path / "tree/trainval")
    path = tmp_path / "tree/trainval/2009_1.mat"
    if fault == "missing":
        path.unlink()
    elif fault == "empty":
        path.write_bytes(b"")
    else:
        scipy.io.savemat(path, {"LabelMap": np.full(SIZE, 0.5)})
    arguments = [f"--raw_dir={tmp_path}/tree", f"--data_dir={tmp_path}"]
    assert main(builder[1], arguments) == 1
    error = capsys.readouterr().err
    assert "2009_1" in error and error.count("\n") == 1
    what = {"missing": "no mask", "empty": "MATLAB", "float": "whole numbers"}
    assert what[fault] in error


def test_real_samples_show_the_classes_of_the_original_colours(
    builder, tmp_path, preparing, shared_data, reference
):
    num_classes, cls = builder
    samples = shared_data("samples/pascal_context")
    root = tmp_path / "VOC2010"
    shutil.copytree(samples / "VOCdevkit/VOC2010", root)
    lists = root / "ImageSets/SegmentationContext"
    lists.chmod(0o755)
    shutil.copy(lists / "val.txt", lists / "train.txt")
    arguments = [f"--raw_dir={root}", f"--data_dir={tmp_path / 'out'}"]
    assert main(cls, arguments) == 0
    # The originals are painted with the VOC colour map in FCN's order of classes.
    with (reference / "classes/pascal_context_fcn_order.csv").open() as lines:
        fcn = {
            (int(row["r"]), int(row["g"]), int(row["b"])): row["name"]
            for row in csv.DictReader(lines)
        }
    spellings = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
    examples = preparing.read_split(SPECS[num_classes], "val", tmp_path / "out")
    assert len(examples) == 4
    for x in examples:
        with Image.open(samples / f"original_rgb_masks/{x['image_id']}.png") as image:
            colours = np.array(image.convert("RGB"))
        for colour in np.unique(colours.reshape(-1, 3), axis=0).tolist():
            name = fcn.get(tuple(colour), "background")
            name = spellings.get(name, name)
            found = np.unique(x["label"][(colours == colour).all(2)]).tolist()
            classes = SPECS[num_classes].classes
            wanted = classes.index(name) if name in classes else 255
            assert found == [wanted], (x["image_id"], name)
