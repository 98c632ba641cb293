"""Names, ids and settings that do not agree, and classes that cannot be learnt."""

import cv2
import numpy as np
import pytest
from PIL import Image

from .conftest import masks, write_mask


def rewrite(folder, change):
    for path in masks(folder):
        write_mask(path, change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def texts(report, level):
    return [f["text"] for f in report["findings"] if f["level"] == level]


def test_the_command_that_comes_next_is_said(check, folder):
    _, text, _ = check()
    train = f"Train: segnext-jax train {folder}"
    assert text.splitlines()[-3] == train
    (folder / "classes.txt").write_text("leaf\nsky\n")
    _, text, _ = check("--config.data.zero_is_ignore=true")
    assert f"{train} --config.data.zero_is_ignore=true\n" in text
    _, text, _ = check()  # Found out; a training does so, too.
    assert f"{train}\n" in text
    _, text, _ = check("--config.data.zero_is_ignore=false")
    assert "Train:" not in text


def test_masks_without_a_label_are_an_error(check, folder):
    rewrite(folder, lambda labels: np.full_like(labels, 255))
    code, _, report = check()
    assert code == 1
    (text,) = texts(report, "error")
    assert "no pixel of any mask is labelled" in text


def test_one_class_is_an_error(check, folder):
    (folder / "classes.txt").write_text("soil\n")
    rewrite(folder, lambda labels: np.where(labels == 255, 255, 0))
    code, _, report = check()
    assert code == 1
    (text,) = texts(report, "error")
    assert "there is one class only, 'soil'" in text


def test_a_name_for_nothing_and_zero_is_ignore_are_followed_to_the_end(check, folder):
    # 0 means unlabelled, and classes.txt names it.
    (folder / "classes.txt").write_text("null\nsoil\nleaf\n")
    rewrite(folder, lambda labels: np.where(labels == 255, 0, labels))
    code, _, report = check()
    (text,) = texts(report, "warning")
    assert code == 0 and "id 0 is called 'null' and is learnt as a class" in text
    assert "zero_is_ignore=true and remove the line 'null'" in text
    # Half of the advice is refused ...
    code, _, report = check("--config.data.zero_is_ignore=true")
    assert code == 1
    assert any("Remove the line 'null'" in text for text in texts(report, "error"))
    # ... all of it works, and names are those of the ids.
    (folder / "classes.txt").write_text("soil\nleaf\n")
    code, _, report = check("--config.data.zero_is_ignore=true")
    assert code == 0 and report["findings"] == []
    train = report["splits"]["train"]
    raw = train["pixels_per_raw_id"]
    assert [row["pixels"] for row in train["classes"]] == [raw["1"], raw["2"]]


def test_a_name_too_many_with_zero_is_ignore_is_noticed(check, folder):
    (folder / "classes.txt").write_text("rest\nsoil\nleaf\n")
    rewrite(folder, lambda labels: np.where(labels == 255, 0, labels))
    code, _, report = check("--config.data.zero_is_ignore=true")
    text = " ".join(texts(report, "warning"))
    assert code == 0 and "does 'rest' name id 0? Then remove its line" in text


def test_uneven_splits_and_rare_classes_are_noticed(check, folder):
    rewrite(folder, lambda labels: np.where(labels == 2, 1, labels))
    path = masks(folder)[0]
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[:8, :8] = 2
    write_mask(path, labels)
    for kind in ("images", "masks"):
        for name in "1234":
            (folder / kind / "train" / f"{name}.png").unlink()
    code, _, report = check()
    text = " ".join(texts(report, "warning"))
    assert code == 0 and "train has 2 photographs and val 3: training usually" in text
    assert "rare" not in text
    labels[:8, :8] = 1
    labels[0, :3] = 2
    write_mask(path, labels)
    _, _, report = check()
    text = " ".join(texts(report, "warning"))
    assert "1 of 3 classes are rare in train" in text and "sky (0.0" in text
    assert "config.data.rare_class_temperature=0.01" in text


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_mask_in_the_alpha_channel_is_told_so(check, folder, mode):
    for path in masks(folder):
        labels = Image.open(path)
        black = Image.new(mode, labels.size)
        black.putalpha(labels)
        black.save(path)
    code, _, report = check()
    assert code == 1
    assert "the alpha channel varies" in texts(report, "error")[0]
