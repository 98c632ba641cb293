"""Folders of which little or nothing can be read: one error for each cause."""

import os
import shutil

import cv2
import numpy as np
import pytest

from segnext_jax.check_dataset import inspection

from .conftest import SIZE, masks


def errors(report):
    return [f["text"] for f in report["findings"] if f["level"] == "error"]


def to_lists(folder, encoding="utf-8", line="{name}"):
    """Make of split folders one folder with lists."""
    for split in ("train", "val"):
        names = sorted(path.stem for path in (folder / "images" / split).iterdir())
        text = "".join(line.format(name=name) + "\r\n" for name in names)
        (folder / f"{split}.txt").write_bytes(text.encode(encoding))
        for kind in ("images", "masks"):
            for path in (folder / kind / split).iterdir():
                path.rename(folder / kind / path.name)
            (folder / kind / split).rmdir()


def test_masks_with_an_ending_are_two_errors_and_no_third(check, folder):
    for path in masks(folder):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    code, text, report = check()
    assert code == 1 and len(errors(report)) == 4
    assert "their names end with '_mask'" in errors(report)[1]
    assert "no split" not in text and "mean" not in text and "id  class" not in text


def test_lists_of_powershell_are_read(check, folder):
    _, _, whole = check()
    to_lists(folder, "utf-16")
    code, _, report = check()
    assert code == 0 and report["splits"].keys() == whole["splits"].keys()
    for split, found in report["splits"].items():
        assert found["images"] == whole["splits"][split]["images"]


def test_lists_of_other_forms_are_one_error_for_each(check, folder, monkeypatch):
    to_lists(folder, line="images/{name}.png masks/{name}.png")
    monkeypatch.chdir(folder)
    code, text, report = check(target=".")
    assert code == 1 and len(errors(report)) == 2
    assert "line 1 'images/0.png masks/0.png' (write '0')" in errors(report)[0]
    assert text.startswith(f"{folder}\n\nerror: ")


@pytest.mark.parametrize("wrong", [-1, np.nan])
def test_masks_with_minus_one_or_nan_are_told_so(check, folder, wrong):
    path = masks(folder)[0]
    labels = np.zeros(SIZE, np.int32 if wrong == -1 else np.float32)
    labels[3, 4] = wrong
    cv2.imwrite(str(path.with_suffix(".tif")), labels)
    path.unlink()
    code, _, report = check()
    assert code == 1
    (text,) = errors(report)
    found = "-1..0 (int32)" if wrong == -1 else "0.0..0.0, NaN or infinity among them"
    assert f"ids of a label map must be whole and lie in [0, 255]: got {found}" in text


def test_pipes_among_the_files_are_not_opened(check, folder):
    for kind in ("images", "masks"):
        path = folder / kind / "train" / "0.png"
        path.unlink()
        os.mkfifo(path)
    code, _, report = check()
    assert code == 1
    assert all("not files" in text for text in errors(report))


def test_a_photograph_with_a_video_behind_it_is_one(check, folder):
    path = folder / "images" / "train" / "0.png"
    jpeg = cv2.imencode(".jpg", cv2.imread(str(path)))[1].tobytes()
    path.with_suffix(".jpg").write_bytes(
        jpeg + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 99
    )
    path.unlink()
    code, _, report = check()
    assert code == 0 and report["splits"]["train"]["formats"] == {
        "JPEG RGB": 1,
        "PNG RGB": 5,
    }


def test_a_split_that_cannot_be_used_is_said_to_be_so(check, folder):
    shutil.rmtree(folder / "masks" / "val")
    code, log, _ = check("--split=val")
    assert code == 1 and "has no folder of masks" in log and "it has train" in log


def test_colours_are_counted_block_by_block(check, folder, monkeypatch):
    table = np.array(
        [(90, 60, 30), (0, 200, 0), (1, 2, 3), *[(0, 0, 0)] * 253], np.uint8
    )
    for path in masks(folder):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), table[labels])
    _, _, whole = check()
    monkeypatch.setattr(inspection, "_BLOCK_BYTES", 700)
    _, _, blocks = check()
    assert errors(whole) == errors(blocks)
    assert "with 4 colours" in errors(whole)[0]
