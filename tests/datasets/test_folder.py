import os

import cv2
import numpy as np
import pytest

from segnext_jax.datasets.folder import find_splits, scan_folder
from segnext_jax.images.decode import encode_label

PHOTO = cv2.imencode(".jpg", np.full((4, 6, 3), 200, np.uint8))[1].tobytes()
MASK = encode_label(np.ones((4, 6), np.uint8))


def write(root, *paths):
    for name in paths:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_image = name.split("/")[0] in ("images", "img_dir")
        path.write_bytes(PHOTO if is_image else MASK)


def names(splits):
    return {split: [pair.image_id for pair in pairs] for split, pairs in splits.items()}


def test_split_folders_are_matched_by_the_path_below_them(tmp_path):
    write(tmp_path, "images/train/b/2.jpeg", "masks/train/b/2.png")
    write(tmp_path, "images/train/b/1.JPG", "masks/train/b/1.tif")
    write(tmp_path, "images/train/a.v1.webp", "masks/train/a.v1.bmp")
    write(tmp_path, "images/val/a.v1.bmp", "masks/val/a.v1.webp")
    write(tmp_path, "images/train/._b.jpg", "images/train/Thumbs.db")
    splits = find_splits(tmp_path)
    assert names(splits) == {"train": ["a.v1", "b/1", "b/2"], "val": ["a.v1"]}
    pair = splits["train"][1]
    assert pair.image == tmp_path / "images/train/b/1.JPG"
    assert pair.label == tmp_path / "masks/train/b/1.tif"


@pytest.mark.parametrize("folders", ["img_dir ann_dir", "images labels"])
def test_other_names_of_the_two_folders(tmp_path, folders):
    images, masks = folders.split()
    write(tmp_path, f"{images}/train/1.png", f"{masks}/train/1.png")
    assert names(find_splits(tmp_path)) == {"train": ["1"]}


def test_lists_decide_where_they_are(tmp_path):
    for name in ("a/1", "a/2", "b.v1", "c"):
        write(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    (tmp_path / "train.txt").write_text("b.v1\na/2.png\n\n")
    (tmp_path / "val.txt").write_text("a/1\r\n")
    assert names(find_splits(tmp_path)) == {"train": ["a/2", "b.v1"], "val": ["a/1"]}


def test_a_folder_without_splits_is_one(tmp_path):
    write(tmp_path, "images/x/1.png", "masks/x/1.png")
    assert names(find_splits(tmp_path)) == {"all": ["x/1"]}


def test_linked_folders_are_read(tmp_path):
    write(tmp_path / "elsewhere", "images/1.png", "masks/1.png")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "train").symlink_to(tmp_path / "elsewhere" / kind)
    assert names(find_splits(tmp_path)) == {"train": ["1"]}


def test_all_faults_are_named_at_once(tmp_path):
    write(tmp_path, "images/train/1.jpg", "masks/train/1.png")
    write(tmp_path, "images/train/1.png", "masks/train/3.png")
    for k in range(10, 20):
        write(tmp_path, f"images/train/{k}.jpg")
    write(tmp_path, "images/train/x.jpg", "masks/train/x.jpg")
    write(tmp_path, "images/val/1.jpg")
    with pytest.raises(ValueError) as error:
        find_splits(tmp_path)
    message = str(error.value)
    for part in (
        "images/train/1.jpg and",
        "differ in their suffix only",
        "without a mask: 10, 11, 12, 13, 14 and 5 more",
        "masks/train without a photograph: 3",
        "JPEG files, which do not keep ids: x",
        "images/val has no folder of masks",
    ):
        assert part in message
    assert names(scan_folder(tmp_path).splits) == {"train": ["1"], "val": []}


def test_masks_whose_names_have_an_ending_are_told_to_lose_it(tmp_path):
    write(tmp_path, "images/train/a.jpg", "masks/train/a_mask.png")
    write(tmp_path, "images/train/a_b.jpg", "masks/train/a_b_mask.png")
    with pytest.raises(ValueError, match=r"names end with '_mask': rename them"):
        find_splits(tmp_path)
    write(tmp_path, "masks/train/c.png")
    with pytest.raises(ValueError, match=r"a_b_mask, a_mask, c\."):
        find_splits(tmp_path)


def test_lists_that_name_what_is_not_there(tmp_path):
    write(tmp_path, "images/1.png", "masks/1.png")
    (tmp_path / "train.txt").write_text("1\n1.png\n2\n")
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(ValueError) as error:
        find_splits(tmp_path)
    message = str(error.value)
    assert "train.txt names no pair" in message and "line 3 '2'" in message
    assert "names pairs twice: line 2 '1.png'" in message
    assert "val.txt names nothing" in message


def test_missing_and_doubtful_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="images or img_dir: found none"):
        find_splits(tmp_path)
    write(tmp_path, "images/1.png", "masks/1.png", "labels/1.png")
    with pytest.raises(FileNotFoundError, match=r"found .*masks and .*labels"):
        find_splits(tmp_path)
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "labels/1.png").unlink()
    (tmp_path / "labels").rmdir()
    with pytest.raises(ValueError, match=r"images holds no file \.jpg, \.jpeg"):
        find_splits(tmp_path)


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("images/a/1.jpg", "a/1"),
        ("images/a/1.jpg masks/a/1.png", "a/1"),
        ("a/1.jpg\tmasks/a/1.png", "a/1"),
        ("./a/1.jpg", "a/1"),
        ("/home/me/set/images/a/1.jpg", "a/1"),
        (r"images\a\1.jpg", "a/1"),
        (r"C:\set\images\a\1.jpg", "a/1"),
        ("'a/1.jpg',", "a/1"),
        ("1.jpg", "a/1"),
        ("a/1.jpg 1", "a/1"),
        ("b c.jpg", None),
    ],
)
def test_a_wrong_line_is_told_what_it_should_be(tmp_path, line, right):
    for name in ("a/1", "a/2", "d"):
        write(tmp_path, f"images/{name}.jpg", f"masks/{name}.png")
    (tmp_path / "train.txt").write_text(f"d\n{line}\n")
    (fault,) = scan_folder(tmp_path).faults
    advice = "" if right is None else f" (write {right!r})"
    assert (
        f"train.txt names no pair of {tmp_path}/images: line 2 {line!r}{advice};"
        in (fault)
    )


def test_one_cause_is_one_fault(tmp_path):
    write(tmp_path, "images/train/1.jpg", "masks/train/1.png", "images/train/2.jpg")
    (tmp_path / "train.txt").write_text("1\n")
    first, second = scan_folder(tmp_path).faults
    assert "without a mask: train/2" in first
    assert "(write 'train/1')" in second and "without it, the folder" in second
    (tmp_path / "train.txt").write_text("train/1\ntrain/2.jpg\n")
    (fault,) = scan_folder(tmp_path).faults
    assert "without a mask: train/2" in fault


def test_lists_of_windows_are_read(tmp_path):
    write(tmp_path, "images/a/été.jpg", "masks/a/été.png")
    (tmp_path / "train.txt").write_text("a/été.jpg\r\n", encoding="utf-16")
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfa/\xc3\xa9t\xc3\xa9\r")
    assert names(find_splits(tmp_path)) == {"train": ["a/été"], "val": ["a/été"]}
    (tmp_path / "val.txt").write_bytes(b"\x89PNG\0")
    (fault,) = scan_folder(tmp_path).faults
    assert "val.txt: must be a text file" in fault


def test_decomposed_names_match_composed_ones_and_are_noted(tmp_path, caplog):
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    write(tmp_path, f"images/{composed}.jpg", f"masks/{decomposed}.png")
    (tmp_path / "train.txt").write_text(f"{decomposed}.jpg\n")
    with caplog.at_level("WARNING"):
        assert names(find_splits(tmp_path)) == {"train": [composed]}
    assert "1 names in" in caplog.text and "NFC and NFD" in caplog.text


def test_pipes_and_links_to_nothing_are_faults(tmp_path):
    write(tmp_path, "images/train/1.jpg", "masks/train/1.png")
    os.mkfifo(tmp_path / "images/train/2.jpg")
    (tmp_path / "masks/train/2.png").symlink_to("nowhere")
    first, second = scan_folder(tmp_path).faults
    assert "links to nothing, not files" in first and "images/train/2.jpg" in first
    assert "masks/train/2.png" in second


def test_without_val_every_fifth_is_val_and_more_photographs_change_little(tmp_path):
    first = [f"{i}" for i in range(40)]
    for name in first:
        write(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    before = names(find_splits(tmp_path))
    assert len(before["val"]) == 8
    assert sorted(before["train"] + before["val"]) == sorted(first)
    assert before["val"] != sorted(first)[::5]
    for name in range(40, 50):
        write(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    after = names(find_splits(tmp_path))
    assert len(after["val"]) == 10
    assert len(set(before["val"]) & set(after["val"])) >= 5
