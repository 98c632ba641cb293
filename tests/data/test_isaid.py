import json

import cv2
import numpy as np
import pytest

from segnext_jax.datasets import get_spec
from segnext_jax.images.decode import decode_image

SPEC = get_spec("isaid")
COLOURS = np.array(SPEC.colours, np.uint8)
ENDING = "_instance_color_RGB.png"
# Below 40 on one side, on both, exactly 40, and larger.
SIZES = {
    "train": {"P0000": (30, 70), "P0001": (95, 61), "P1527": (41, 41)},
    "val": {"P0002": (20, 25), "P0003": (40, 40), "P0004": (57, 30)},
}


@pytest.fixture(scope="module")
def module(preparing):
    return preparing.load("isaid")


def ids_of(name, size):
    seed = int(name[1:])
    return np.random.default_rng(seed).integers(0, 16, size, np.uint8)


@pytest.fixture
def tree(tmp_path, preparing):
    root = tmp_path / "tree"
    for split, sizes in SIZES.items():
        for name, size in sizes.items():
            image = root / f"{split}/images/images/{name}.png"
            preparing.write_image(image, size, int(name[1:]))
            mask = root / f"{split}/Semantic_masks/images/images/{name}{ENDING}"
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), COLOURS[ids_of(name, size)][..., ::-1])
            other = mask.with_name(f"{name}_instance_id_RGB.png")
            cv2.imwrite(str(other), np.zeros((*size, 3), np.uint8))
    return root


def windows_of_mmsegmentation(height, width, patch, overlap):
    """Return (y, x) as its loops do: multiples of the stride, moved inside."""
    height, width = max(height, patch), max(width, patch)
    found = set()
    for x in range(0, width, patch - overlap):
        for y in range(0, height, patch - overlap):
            y0 = y - (y + patch - height if y + patch > height else 0)
            x0 = x - (x + patch - width if x + patch > width else 0)
            found.add((y0, x0))
    return found


def padded(array, patch, value):
    below, right = (max(patch - side, 0) for side in array.shape[:2])
    widths = [(0, below), (0, right)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, widths, constant_values=value)


@pytest.mark.parametrize("layout", ["tree", "archives"])
def test_patches_are_windows_of_the_padded_photograph(
    layout, tree, tmp_path, module, preparing
):
    raw = tree
    if layout == "archives":
        raw = tmp_path / "downloads"
        for split in SIZES:
            preparing.pack(tree / split / "images", raw / f"{split}/images/part1.zip")
            masks = raw / f"{split}/Semantic_masks/images.zip"
            preparing.pack(tree / split / "Semantic_masks", masks)
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path}"]
    arguments += ["--patch_size=40", "--overlap=16"]
    assert preparing.main(module.Isaid, arguments) == 0
    for split, sizes in SIZES.items():
        examples = preparing.read_split(SPEC, split, tmp_path)
        seen = {x["image_id"]: x for x in examples}
        expected = {
            f"{name}_{y}_{y + 40}_{x}_{x + 40}": (name, y, x)
            for name, size in sizes.items()
            for y, x in windows_of_mmsegmentation(*size, 40, 16)
        }
        assert seen.keys() == expected.keys() and len(examples) == len(seen)
        for image_id, (name, y, x) in expected.items():
            (file,) = tree.glob(f"{split}/images/images/{name}.png")
            image = padded(decode_image(file.read_bytes()), 40, 0)
            labels = padded(ids_of(name, sizes[name]), 40, 255)
            window = slice(y, y + 40), slice(x, x + 40)
            found = decode_image(seen[image_id]["image"])
            np.testing.assert_array_equal(found, image[window])
            np.testing.assert_array_equal(seen[image_id]["label"], labels[window])
            assert found.shape == (40, 40, 3)


def test_the_jseg_preset_keeps_small_photographs_whole(
    tree, tmp_path, module, preparing
):
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--preset=jseg"]
    arguments += ["--patch_size=40", "--overlap=10"]
    assert preparing.main(module.Isaid, arguments) == 0
    names = [x["image_id"] for x in preparing.read_split(SPEC, "train", tmp_path)]
    # P0000 is as low as a patch, P1527 is left out, P0001 is cut: 95 and 61 pixels
    # with stride 30.
    starts = [(y, x) for y in (0, 30, 55) for x in (0, 21)]
    assert names == ["P0000"] + [f"P0001_{y}_{y + 40}_{x}_{x + 40}" for y, x in starts]
    val = preparing.read_split(SPEC, "val", tmp_path)
    assert [(x["image_id"], x["label"].shape) for x in val] == [
        ("P0002", (20, 25)),
        ("P0003", (40, 40)),
        ("P0004", (57, 30)),
    ]
    metadata = json.loads((tmp_path / "isaid/1.0.0/metadata.json").read_text())
    patching = {k: metadata[k] for k in ("patches", "patch_size", "overlap")}
    assert patching == {"patches": "jseg", "patch_size": 40, "overlap": 10}


def test_presets_are_the_published_ones(module, tmp_path):
    for preset, expected in (("mmseg", (896, 384)), ("jseg", (800, 200))):
        options = module.Isaid(data_dir=tmp_path, preset=preset).options()
        assert (options["patch_size"], options["overlap"]) == expected


@pytest.mark.parametrize("length", [896, 897, 1407, 1408, 1409, 4000, 12029])
def test_windows_cover_a_side_and_end_at_its_end(length, module):
    starts = module.window_starts(length, 896, 512)
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + 896] = True
    assert covered.all() and starts[-1] + 896 == length
    assert starts == sorted(set(starts))
    expected = windows_of_mmsegmentation(1, length, 896, 384)
    assert {(0, start) for start in starts} == expected


def test_another_patching_is_not_passed_off_as_the_prepared_one(
    tree, tmp_path, module, preparing, capsys
):
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--patch_size=40"]
    assert preparing.main(module.Isaid, [*arguments, "--overlap=0"]) == 0
    assert preparing.main(module.Isaid, [*arguments, "--overlap=0"]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert preparing.main(module.Isaid, [*arguments, "--overlap=8"]) == 1
    error = capsys.readouterr().err
    assert "was prepared with other options" in error and "'overlap': 8" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--overlap=896"], "the overlap must be smaller than the patch"),
        (["--overlap=-1"], "not negative: got --overlap=-1"),
        (["--preset=cut", "--overlap=3"], "leave out --patch_size"),
    ],
)
def test_patches_that_cannot_be_are_refused(
    flags, message, tree, tmp_path, module, preparing, capsys
):
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", *flags]
    assert preparing.main(module.Isaid, arguments) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_colour_names_file_and_place_and_counts_once(
    tree, tmp_path, module, preparing, capsys
):
    mask = tree / f"train/Semantic_masks/images/images/P0001{ENDING}"
    image = cv2.imread(str(mask))
    image[90, 3] = (1, 2, 3)
    cv2.imwrite(str(mask), image)
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--patch_size=40"]
    arguments += ["--overlap=0"]
    assert preparing.main(module.Isaid, arguments) == 1
    error = capsys.readouterr().err
    assert str(mask) in error and "found (3, 2, 1) at row 90, column 3" in error
    # All patches of the photograph are one fault.
    assert preparing.main(module.Isaid, [*arguments, "--skip_broken=1"]) == 0
    assert capsys.readouterr().out.count("skipped: ") == 1
    names = [x["image_id"] for x in preparing.read_split(SPEC, "train", tmp_path)]
    assert names and not any(name.startswith("P0001") for name in names)


@pytest.mark.parametrize(
    ("contents", "message"),
    [(b"", "P0001.png: cannot be decoded"), ("smaller", "one size: got (30, 70)")],
)
def test_a_broken_photograph_is_named(
    contents, message, tree, tmp_path, module, preparing, capsys
):
    file = tree / "train/images/images/P0001.png"
    other = file.with_name("P0000.png").read_bytes()
    file.write_bytes(other if contents == "smaller" else contents)
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--patch_size=40"]
    assert preparing.main(module.Isaid, [*arguments, "--overlap=0"]) == 1
    error = capsys.readouterr().err
    assert message in error and str(file) in error


def test_photographs_are_decoded_one_at_a_time(
    tree, tmp_path, module, preparing, monkeypatch
):
    opened = []

    class Counting(module.Isaid):
        def _open_photograph(self, patch):
            assert self._opened is None, "the one before is still held"
            opened.append(patch.image.name)
            return super()._open_photograph(patch)

    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]
    arguments += ["--patch_size=40", "--overlap=36"]
    assert preparing.main(Counting, arguments) == 0
    # Threads may cross at a border between two photographs, no more than that.
    assert len(set(opened)) == 6 and len(opened) <= 12


def test_patches_that_are_cut_already_are_taken_as_they_are(
    tmp_path, module, preparing, shared_data
):
    samples = shared_data("samples/isaid")
    arguments = [f"--raw_dir={samples}", f"--data_dir={tmp_path}", "--preset=cut"]
    assert preparing.main(module.Isaid, arguments) == 0
    for split, count in (("train", 2), ("val", 7)):
        examples = preparing.read_split(SPEC, split, tmp_path)
        assert len(examples) == count
        for x in examples:
            file = samples / f"img_dir/{split}/{x['image_id']}.png"
            assert x["image"] == file.read_bytes()


def test_real_photographs_give_the_patches_of_mmsegmentation(
    tmp_path, module, preparing, shared_data
):
    samples = shared_data("samples/isaid")
    arguments = [f"--raw_dir={samples / 'raw'}", f"--data_dir={tmp_path}"]
    assert preparing.main(module.Isaid, arguments) == 0
    for split in ("train", "val"):
        examples = {
            x["image_id"]: x for x in preparing.read_split(SPEC, split, tmp_path)
        }
        files = sorted((samples / f"img_dir/{split}").iterdir())
        assert sorted(examples) == sorted(file.stem for file in files)
        for file in files:
            example = examples[file.stem]
            np.testing.assert_array_equal(
                decode_image(example["image"]), decode_image(file.read_bytes())
            )
            folder, name = samples / f"ann_dir/{split}", f"{file.stem}{ENDING[:-4]}"
            mask = preparing.decode(folder, name)
            np.testing.assert_array_equal(example["label"], mask)
