"""Folders that are whole and folders broken on purpose."""

import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from .conftest import SIZE, label_map, masks, photograph, write_mask

COLOURS = ((90, 60, 30), (0, 200, 0), (0, 0, 250))


def rewrite(folder, change):
    """Replace each mask by a function of its labels."""
    for path in masks(folder):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write_mask(path, change(labels))


def only(report, level):
    """Return the one finding of a level."""
    found = [f for f in report["findings"] if f["level"] == level]
    assert len(found) == 1, found
    return found[0]


def test_a_whole_folder_has_no_finding_and_its_numbers_are_right(check, folder):
    code, text, report = check()
    assert code == 0 and report["findings"] == []
    assert "Nothing is wrong that this program knows of." in text
    photos = np.stack([photograph(seed) for seed in range(9)]).astype(float)
    np.testing.assert_allclose(report["mean"], photos.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(report["std"], photos.std((0, 1, 2)), rtol=1e-9)
    train = report["splits"]["train"]
    labels = np.stack([label_map(seed) for seed in range(6)])
    for class_id, row in enumerate(train["classes"]):
        assert row["name"] == ("soil", "leaf", "sky")[class_id]
        assert row["pixels"] == (labels == class_id).sum()
        assert row["images"] == (labels == class_id).any((1, 2)).sum()
    assert train["ignored_pixels"] == (labels == 255).sum()
    assert train["images"] == 6 and train["formats"] == {"PNG RGB": 6}
    assert train["sizes"]["height"] == [48, 48, 48]
    assert train["sizes"]["aspect"] == [64 / 48] * 3
    assert re.search(r"0  soil +\d+\.\d{3}% +6 +\d+\.\d{3}% +3\n", text)


def test_the_contact_sheet_shows_photographs_and_colours(check, tmp_path):
    check()
    sheet = cv2.imread(str(tmp_path / "report" / "contact_sheet_val.png"))
    # Three cells of two panels, enlarged from 64x48 to the height of a panel.
    assert sheet.shape[1] == 3 * (2 * 280 + 24) and sheet.shape[0] > 200
    panel = sheet[22:222, 8 : 8 + 266, ::-1]
    expected = cv2.resize(photograph(6), (266, 200), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(panel, expected)


def test_ids_that_begin_at_one(check, folder):
    def shift(labels):
        return np.where(labels == 255, 0, labels + np.uint8(1))

    rewrite(folder, shift)
    code, text, report = check()
    assert code == 0 and report["findings"] == []
    assert "found out: the ids of the masks end at 3, with 3 classes: the" in text
    code, _, report = check("--config.data.mask_values=ids")
    assert code == 1
    text = only(report, "error")["text"]
    assert "found 3 on" in text
    assert "Ids 0..3 seen with 3 classes: did you mean config.data.zero" in text
    code, _, report = check("--config.data.zero_is_ignore=true")
    assert code == 0 and report["findings"] == []


def test_zero_that_may_mean_nothing(check, folder):
    def hollow(labels):
        return np.where((labels == 255) | (np.arange(64) < 40), 0, labels)

    rewrite(folder, hollow)
    code, _, report = check()
    assert code == 0
    assert "id 0, 'soil', covers" in only(report, "warning")["text"]
    (folder / "classes.txt").write_text("background\nleaf\nsky\n")
    assert check()[2]["findings"] == []


def test_masks_of_0_and_255(check, folder):
    rewrite(folder, lambda labels: np.where(labels == 1, 255, 0))
    (folder / "classes.txt").write_text("soil\nleaf\n")
    assert "255 is the second class." in check()[1]
    code, _, report = check("--config.data.mask_values=ids")
    assert code == 1 and "id_map to ((0, 0), (255, 1))" in only(report, "error")["text"]
    code, _, report = check("--config.data.id_map=(0,0),(255,1)")
    assert code == 0 and report["findings"] == []


def write_colours(folder, paint):
    for path in masks(folder):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) % 4
        colours = np.array([*COLOURS, (255, 255, 255)], np.uint8)[labels]
        cv2.imwrite(str(path), paint(colours)[..., ::-1])


def test_colour_masks_without_a_table(check, folder):
    write_colours(folder, lambda colours: colours)
    code, _, report = check()
    assert code == 1
    text = only(report, "error")["text"]
    assert text.startswith("9 masks of colours, not of ids, with 4 colours: ")
    assert "(90, 60, 30) on " in text and "compressed" not in text
    names = ("soil", "leaf", "sky", "ignore")
    colours = (*COLOURS, (255, 255, 255))
    lines = [f"{n} {r} {g} {b}" for n, (r, g, b) in zip(names, colours, strict=True)]
    (folder / "classes.txt").write_text("\n".join(lines))
    code, _, report = check("--config.data.mask_values=colours")
    assert code == 0 and report["findings"] == []
    (folder / "classes.txt").write_text("\n".join(lines[:3]))
    code, _, report = check("--config.data.mask_values=colours")
    assert code == 1
    assert (
        "with 1 colour that the table does not have: (255, 255, 255) on"
        in (only(report, "error")["text"])
    )


def test_colour_masks_that_were_compressed(check, folder):
    def through_jpeg(colours):
        return cv2.imdecode(cv2.imencode(".jpg", colours)[1], cv2.IMREAD_COLOR)

    write_colours(folder, through_jpeg)
    code, _, report = check()
    assert code == 1
    assert "So many colours are a sign of masks" in only(report, "error")["text"]


def test_masks_resized_with_interpolation(check, folder):
    def resized(labels):
        labels = np.where(labels == 255, 0, labels) * np.uint8(40)
        small = cv2.resize(labels, (31, 23), interpolation=cv2.INTER_NEAREST)
        return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR)

    rewrite(folder, resized)
    (folder / "classes.txt").write_text("\n".join(f"class {i}" for i in range(200)))
    code, _, report = check()
    assert code == 0
    texts = [finding["text"] for finding in report["findings"]]
    assert any("differ from all their neighbours" in text for text in texts)


def enlarged(labels):
    part = cv2.resize(labels[:24, :32], SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(part, (32, 24), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def compressed(labels):
    # JPEG keeps blocks of one value that lie on its own grid.
    labels = np.roll(labels, (3, 5), (0, 1))
    return cv2.imdecode(cv2.imencode(".jpg", labels)[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize("spoil", [enlarged, compressed])
def test_strays_on_boundaries_only(check, folder, spoil):
    def spaced(labels):
        # Ids 0, 1 and 100: between 1 and 100 lies no class.
        return np.choose(np.where(labels == 255, 0, labels), (0, 1, 100))

    rewrite(folder, lambda labels: spoil(spaced(labels).astype(np.uint8)))
    (folder / "classes.txt").write_text("soil\nleaf\n")
    code, _, report = check("--config.data.id_map=(0,0),(1,1),(100,255)")
    assert code == 1
    text = next(f["text"] for f in report["findings"] if f["level"] == "error")
    assert "They lie on boundaries only" in text
    for path in masks(folder):
        write_mask(path, spaced(label_map(int(path.stem))))
    assert check("--config.data.id_map=(0,0),(1,1),(100,255)")[2]["findings"] == []


def test_ids_of_missing_classes_are_not_taken_for_boundaries(check, folder):
    rewrite(folder, lambda labels: np.where(labels == 255, 0, labels + np.uint8(3)))
    code, _, report = check()
    assert code == 1
    text = next(f["text"] for f in report["findings"] if f["level"] == "error")
    assert "found 3, 4, 5 on" in text and "boundaries" not in text
    assert "Add the missing classes to classes.txt, or say with config.data.id" in text


def test_all_broken_files_are_named_at_once(check, folder):
    image = folder / "images" / "train" / "0.png"
    image.write_bytes(image.read_bytes()[:300])
    mask = folder / "masks" / "train" / "1.png"
    mask.write_bytes(mask.read_bytes()[:50])
    write_mask(folder / "masks" / "train" / "2.png", label_map(2)[:, :60])
    (folder / "masks" / "train" / "3.png").unlink()
    deep = label_map(4).astype(np.uint16) + 999
    cv2.imwrite(str(folder / "masks" / "train" / "4.png"), deep)
    code, text, report = check()
    assert code == 1
    errors = [f["text"] for f in report["findings"] if f["level"] == "error"]
    assert "train without a mask: 3" in errors[0]
    assert errors[1].startswith("4 files cannot be used: ")
    for part in (
        f"{image}: cannot be decoded as an image",
        f"{mask}: its label map cannot be decoded",
        f"{folder}/images/train/2.png: photograph and mask must have one size",
        f"{folder}/masks/train/4.png: ids of a label map must be whole",
    ):
        assert part in errors[1] and part in text
    assert report["splits"]["train"]["images"] == 5


def test_duplicates_between_and_within_splits(check, folder):
    # Of the same pixels in another file.
    Image.fromarray(photograph(6)).save(folder / "images" / "train" / "0.png")
    picture = Image.fromarray(photograph(1))
    picture.save(folder / "images" / "train" / "2.png", compress_level=0)
    code, _, report = check()
    assert code == 1
    error, warning = only(report, "error"), only(report, "warning")
    assert "1 photograph in several splits" in error["text"]
    assert error["names"] == ["train/0 = val/6"]
    assert "train/1 = train/2" in warning["text"]


def test_empty_labels_missing_classes_and_classes_of_val_alone(check, folder):
    for path in masks(folder):
        labels = label_map(int(path.stem))
        if path.parts[-2] == "train":
            labels[labels == 2] = 0
        if path.stem in ("3", "7"):
            labels[:] = 255
        write_mask(path, labels)
    (folder / "classes.txt").write_text("soil\nleaf\nsky\nrock\n")
    code, _, report = check()
    assert code == 0
    texts = "\n".join(finding["text"] for finding in report["findings"])
    assert "1 of 4 classes never occur: rock" in texts
    assert "classes of val that train never shows cannot be learnt: sky" in texts
    assert "2 images without any label, all pixels ignored: train/3, val/7" in texts
    rewrite(folder, lambda labels: np.zeros_like(labels) + 1)
    texts = "\n".join(finding["text"] for finding in check()[2]["findings"])
    assert "only one class occurs, 'leaf'" in texts


def test_exif_dark_and_small_photographs(check, folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in sorted((folder / "images").rglob("*.png")):
        dark = Image.fromarray(photograph(int(path.stem)) // 32)
        dark.save(path, **({"exif": exif} if path.stem == "8" else {}))
    code, _, report = check("--config.data.base_scale=512,384")
    assert code == 0
    texts = "\n".join(finding["text"] for finding in report["findings"])
    assert "1 photograph with an EXIF orientation, which is applied" in texts
    assert "val/8" in texts and "nearly black" in texts
    assert "enlarges the photographs, by 8.0 in the median" in texts
    code, _, report = check("--config.data.crop_size=512,512")
    assert "9 of 9 photographs fill less than half of the crop" in str(report)


def test_a_folder_without_classes_or_splits_gets_both(check, folder):
    (folder / "classes.txt").unlink()
    shutil.rmtree(folder / "images" / "val")
    code, text, report = check()
    assert code == 0
    assert "note: there is no split val, so that every fifth photograph" in text
    assert "the 3 ids of the masks are the classes. Name them there" in text
    assert [split["images"] for split in report["splits"].values()] == [5, 1]
    assert re.search(r"2  id 2 +\d", text)
    # What somebody says stands.
    code, text, report = check("--config.data.mask_values=ids")
    assert code == 1 and re.search(r"2  id 2 +\d", text)
    assert "classes.txt does not exist" in only(report, "error")["text"]
    shutil.rmtree(folder / "images" / "train")
    (folder / "images" / "test").mkdir()
    code, _, report = check()
    assert code == 1 and "no split 'train', which a training needs" in str(report)


def test_colours_and_ids_without_names_are_classes(check, folder):
    (folder / "classes.txt").unlink()
    rewrite(folder, lambda labels: np.where(labels == 255, 255, labels * 7 + 1))
    code, _, report = check()
    assert code == 0 and report["findings"] == []
    rows = report["splits"]["train"]["classes"]
    assert [row["name"] for row in rows] == ["id 1", "id 8", "id 15"]
    raw = report["splits"]["train"]["pixels_per_raw_id"]
    assert [row["pixels"] for row in rows] == [raw["1"], raw["8"], raw["15"]]
    pixels = {}
    for path in masks(folder):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        places = np.where(labels == 255, 3, labels // 7)
        mask = np.array([*COLOURS, (0, 0, 0)], np.uint8)[places]
        cv2.imwrite(str(path), mask[..., ::-1])
        for colour in COLOURS:
            name = "colour {:02x}{:02x}{:02x}".format(*colour)
            count = np.count_nonzero((mask == colour).all(-1))
            pixels[name] = pixels.get(name, 0) + int(count)
    code, text, report = check()
    assert code == 0 and "black is ignored" in text
    found = dict.fromkeys(pixels, 0)
    for split in report["splits"].values():
        for row in split["classes"]:
            found[row["name"]] += row["pixels"]
    assert found == pixels


def test_a_folder_with_no_usable_pair(check, folder):
    for path in masks(folder):
        path.rename(path.with_suffix(".jpg"))
    code, text, report = check()
    assert code == 1
    assert "masks/train are JPEG files, which do not keep ids: 0, 1, 2" in text
    assert report["splits"] == {}
