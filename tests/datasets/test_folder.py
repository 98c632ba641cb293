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
    assert names(scan_folder(tmp_path).splits) == {"train": ["1"]}


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
