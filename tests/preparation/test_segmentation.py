import fcntl
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from segnext_jax.datasets import DatasetSpec
from segnext_jax.datasets.pairs import PreparationError, match_pairs
from segnext_jax.images.decode import decode_image, decode_label, encode_label
from segnext_jax.pipeline import open_source
from segnext_jax.preparation.command import main, prepare
from segnext_jax.preparation.segmentation import SegmentationBuilder

SPEC = DatasetSpec("tiny", ("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))


class Tiny(SegmentationBuilder):
    spec = SPEC
    expected_tree = "{images,masks}/{train,val}"
    train_id_of = {1: 0, 2: 1, 3: 2, 0: 255, 9: 255}

    def find_examples(self, root):
        base = next(root.find("images/train", "masks/train"), root)
        return {
            split: match_pairs(base / f"images/{split}", base / f"masks/{split}")
            for split in ("train", "val")
        }


@pytest.fixture
def tree(tmp_path):
    """Return a raw tree of five training and two validation pairs, 7x9 to 11x9."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for kind in ("images", "masks"):
            (tmp_path / "raw" / kind / split).mkdir(parents=True)
        for k in range(count):
            size = (7 + k, 9)
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            suffix = "jpg" if k % 2 else "png"
            cv2.imwrite(str(tmp_path / f"raw/images/{split}/{k}.{suffix}"), image)
            mask = rng.choice(np.array([0, 1, 2, 3, 9], np.uint8), size)
            (tmp_path / f"raw/masks/{split}/{k}.png").write_bytes(encode_label(mask))
    return tmp_path / "raw"


def run(tree, tmp_path, capsys):
    status = main(Tiny, [f"--raw_dir={tree}", f"--data_dir={tmp_path}/prepared"])
    return status, *capsys.readouterr()


def test_prepared_examples_are_the_files_and_the_train_ids(tree, tmp_path, capsys):
    status, out, err = run(tree, tmp_path, capsys)
    assert (status, err) == (0, "")
    assert out.endswith("tiny/1.0.0: 5 train, 2 val.\n")
    source = open_source(SPEC, "train", tmp_path / "prepared")
    assert len(source) == 5
    for k in range(5):
        example = source[k]
        file = next((tree / "images/train").glob(f"{k}.*"))
        assert example["image_id"] == str(k)
        assert example["image"] == file.read_bytes()
        raw = decode_label((tree / f"masks/train/{k}.png").read_bytes())
        expected = np.array([255, 0, 1, 2] + 5 * [7] + [255], np.uint8)[raw]
        np.testing.assert_array_equal(decode_label(example["label"]), expected)
        assert decode_image(example["image"]).shape == (7 + k, 9, 3)


def test_the_prepared_folder_describes_itself(tree, tmp_path):
    prepare(Tiny(data_dir=tmp_path, raw_dir=tree))
    folder = tmp_path / "tiny" / "1.0.0"
    assert json.loads((folder / "metadata.json").read_text()) == {
        "classes": ["a", "b", "c"],
        "colours": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "ignore_label": 255,
        "mapping_version": "1.0.0",
        "skipped": [],
    }
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    assert info["location"]["urls"] == ["none: a set of your own"]
    found = tfds.builder_from_directory(folder).info
    assert found.features["label"].names == ["a", "b", "c"]
    # As earlier versions left it: without names of the labels.
    (folder / "label.labels.txt").unlink()
    assert prepare(Tiny(data_dir=tmp_path, raw_dir=tree)) is False
    assert len(open_source(SPEC, "train", tmp_path)) == 5


def test_a_second_run_says_so_and_touches_nothing(tree, tmp_path, capsys):
    run(tree, tmp_path, capsys)
    files = sorted((tmp_path / "prepared").rglob("*"))
    times = [file.stat().st_mtime_ns for file in files]
    status, out, err = run(tree / "gone", tmp_path, capsys)
    assert (status, err) == (0, "")
    assert out.startswith("tiny is already prepared in ")
    assert sorted((tmp_path / "prepared").rglob("*")) == files
    assert [file.stat().st_mtime_ns for file in files] == times
    assert prepare(Tiny(data_dir=tmp_path / "prepared", raw_dir=tree)) is False


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def rewrite_mask(tree: pathlib.Path, size: tuple[int, int], value: int) -> None:
    path = tree / "masks/train/3.png"
    path.write_bytes(encode_label(np.full(size, value, np.uint8)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda t: truncate(t / "images/train/3.jpg"),
            "images/train/3.jpg: cannot be decoded",
        ),
        (
            lambda t: truncate(t / "images/train/2.png"),
            "images/train/2.png: cannot be decoded",
        ),
        (lambda t: truncate(t / "masks/train/3.png"), "masks/train/3.png: its label"),
        (
            lambda t: rewrite_mask(t, (9, 10), 1),
            "3.jpg: photograph and mask must have one size: got (10, 9) and (9, 10)",
        ),
        (lambda t: rewrite_mask(t, (10, 9), 37), "masks/train/3.png: raw ids"),
        (lambda t: (t / "masks/train/3.png").unlink(), "3.jpg has no mask"),
        (lambda t: (t / "images/val/0.png").unlink(), "0.png has no photo"),
        (
            lambda t: (
                [f.unlink() for f in (t / "images/val").iterdir()]
                + [f.unlink() for f in (t / "masks/val").iterdir()]
            ),
            "split 'val' of tiny has no example",
        ),
    ],
)
def test_a_bad_pair_ends_in_one_sentence_and_leaves_nothing(
    spoil, message, tree, tmp_path, capsys
):
    spoil(tree)
    status, out, err = run(tree, tmp_path, capsys)
    assert status == 1
    assert err.startswith("error: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert [p.name for p in (tmp_path / "prepared/tiny").iterdir()] == [
        ".preparing.lock"
    ]


def test_labels_are_checked_against_the_classes_without_a_table(tree, tmp_path):
    class Plain(Tiny):
        train_id_of = {}

    with pytest.raises(
        ValueError,
        match=r"train/0\.png: label ids must lie in \[0, 2\] .* found 3, 9 on",
    ):
        prepare(Plain(data_dir=tmp_path / "prepared", raw_dir=tree))


def test_missing_folders_and_forgotten_downloads_say_what_to_do(tmp_path, capsys):
    status, _, err = run(tmp_path / "nowhere", tmp_path, capsys)
    assert status == 1
    assert "no such folder" in err and Tiny.expected_tree in err
    assert main(Tiny, [f"--data_dir={tmp_path}/prepared"]) == 1
    err = capsys.readouterr().err
    assert "tiny must be downloaded by hand. Please pass --raw_dir=FOLDER" in err


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as error:
        main(Tiny, ["--rawdir=x"])
    assert error.value.code == 2
    assert "--rawdir" in capsys.readouterr().err


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, {here!r})
import test_segmentation
class Killed(test_segmentation.Tiny):
    def load(self, example):
        if example.image_id == "3":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(example)
sys.exit(test_segmentation.main(Killed, sys.argv[1:]))
"""


def test_a_killed_preparation_is_not_taken_for_whole(tree, tmp_path, capsys):
    here = str(pathlib.Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(here=here)]
        + [f"--raw_dir={tree}", f"--data_dir={tmp_path}/prepared"],
        capture_output=True,
    )
    assert done.returncode == -9
    folder = tmp_path / "prepared" / "tiny"
    leftovers = [p for p in folder.iterdir() if p.is_dir()]
    assert len(leftovers) == 1 and leftovers[0].name.startswith("incomplete.")
    with pytest.raises(FileNotFoundError, match="is not prepared in"):
        open_source(SPEC, "train", tmp_path / "prepared")

    assert run(tree, tmp_path, capsys)[0] == 0
    assert [p.name for p in folder.iterdir() if p.is_dir()] == ["1.0.0"]
    assert len(open_source(SPEC, "train", tmp_path / "prepared")) == 5


def test_two_preparations_at_once_are_refused(tree, tmp_path, capsys):
    folder = tmp_path / "prepared" / "tiny"
    folder.mkdir(parents=True)
    with (folder / ".preparing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = run(tree, tmp_path, capsys)
    assert status == 1 and "another process is preparing" in err
    assert run(tree, tmp_path, capsys)[0] == 0


def test_a_folder_that_is_no_prepared_set_is_neither_used_nor_deleted(
    tree, tmp_path, capsys
):
    folder = tmp_path / "prepared" / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("mine")
    status, _, err = run(tree, tmp_path, capsys)
    assert status == 1 and "is no prepared data set. Delete it." in err
    assert (folder / "note.txt").read_text() == "mine"


def test_preparing_never_imports_tensorflow_or_jax(tree, tmp_path):
    here = str(pathlib.Path(__file__).parent)
    command = (
        f"import sys; sys.path.insert(0, {here!r}); import test_segmentation as t\n"
        "assert t.main(t.Tiny, sys.argv[1:]) == 0\n"
        "t.open_source(t.SPEC, 'train', sys.argv[2].split('=')[1])[0]\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", command]
        + [f"--raw_dir={tree}", f"--data_dir={tmp_path}/prepared"],
        check=True,
    )


def test_matching_goes_below_folders_and_cuts_endings(tmp_path):
    for name in ("img/x/1_left.png", "img/y/1_left.png", "ann/x/1_ids.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    endings = {"image_ending": "_left.png", "label_ending": "_ids.png"}
    with pytest.raises(PreparationError, match=r"y/1_left\.png has no mask"):
        match_pairs(tmp_path / "img", tmp_path / "ann", **endings)
    (tmp_path / "ann/y").mkdir()
    (tmp_path / "ann/y/1_ids.png").touch()
    pairs = match_pairs(tmp_path / "img", tmp_path / "ann", **endings)
    assert [pair.image_id for pair in pairs] == ["x/1", "y/1"]


def spoil_three(tree):
    truncate(tree / "images/train/1.jpg")
    rewrite_mask(tree, (9, 10), 1)
    (tree / "masks/val/0.png").write_bytes(b"")
    return ["1.jpg: cannot be", "(10, 9) and (9, 10)", "masks/val/0.png: its label map"]


def test_as_many_broken_files_as_allowed_are_left_out_and_listed(
    tree, tmp_path, capsys
):
    reasons = spoil_three(tree)
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--skip_broken=3"]
    assert main(Tiny, arguments) == 0
    out = capsys.readouterr().out
    assert out.endswith("tiny/1.0.0: 3 train, 1 val.\n")
    listed = [line for line in out.splitlines() if line.startswith("skipped: ")]
    metadata = json.loads((tmp_path / "tiny/1.0.0/metadata.json").read_text())
    assert len(listed) == len(metadata["skipped"]) == 3
    for line, kept, reason in zip(listed, metadata["skipped"], reasons, strict=True):
        assert reason in line and line == f"skipped: {kept}"
    source = open_source(SPEC, "train", tmp_path)
    assert [source[k]["image_id"] for k in range(3)] == ["0", "2", "4"]


def test_one_broken_file_too_many_stops_with_the_list(tree, tmp_path, capsys):
    reasons = spoil_three(tree)
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--skip_broken=2"]
    assert main(Tiny, arguments) == 1
    error = capsys.readouterr().err
    assert "more broken files than --skip_broken=2 allows" in error
    assert all(reason in error for reason in reasons) and error.count("\n") == 1
    assert not (tmp_path / "tiny/1.0.0").exists()
    assert main(Tiny, [*arguments[:2], "--skip_broken=-1"]) == 1
    assert "--skip_broken must not be negative: got -1" in capsys.readouterr().err


def test_an_error_leaves_no_thread_behind(tree, tmp_path):
    spoil_three(tree)
    before = threading.active_count()
    with pytest.raises(ValueError) as error:
        prepare(Tiny(data_dir=tmp_path, raw_dir=tree))
    # The traceback still holds every frame, and so every generator.
    assert error.tb and threading.active_count() == before


def test_a_split_of_broken_files_only_is_refused(tree, tmp_path, capsys):
    for k in range(2):
        (tree / f"masks/val/{k}.png").write_bytes(b"")
    arguments = [f"--raw_dir={tree}", f"--data_dir={tmp_path}", "--skip_broken=9"]
    assert main(Tiny, arguments) == 1
    assert "split 'val' of tiny has broken files only" in capsys.readouterr().err


def test_what_would_fill_the_disk_is_refused_before_it_is_written(
    tree, tmp_path, capsys
):
    class Huge(Tiny):
        def size_bytes(self, example):
            assert super().size_bytes(example) == sum(
                file.stat().st_size for file in (example.image, example.label)
            )
            return 1 << 50

        def encode(self, example):
            raise AssertionError("nothing may be read before the check")

    assert main(Huge, [f"--raw_dir={tree}", f"--data_dir={tmp_path}"]) == 1
    # Seven pairs of 2^20 GiB.
    assert "needs about 7340032.0 GiB for prepared files" in capsys.readouterr().err


def test_an_archive_is_read_only_where_its_files_are_not_unpacked(
    tree, tmp_path, capsys
):
    class Packed(Tiny):
        archive_names = ("tiny*.zip",)

    shutil.make_archive(str(tmp_path / "tiny"), "zip", tree)
    shutil.copy(tmp_path / "tiny.zip", tree / "tiny_copy.zip")
    (tmp_path / "alone").mkdir()
    shutil.move(tmp_path / "tiny.zip", tmp_path / "alone")
    (tmp_path / "alone/other.zip").write_bytes(b"not opened")
    for raw in (tree, tmp_path / "alone", tmp_path / "alone/tiny.zip"):
        data_dir = tmp_path / "prepared" / raw.name
        assert main(Packed, [f"--raw_dir={raw}", f"--data_dir={data_dir}"]) == 0
        assert capsys.readouterr().out.endswith("5 train, 2 val.\n")
        source = open_source(SPEC, "train", data_dir)
        for k in range(5):
            file = next((tree / "images/train").glob(f"{k}.*"))
            assert source[k]["image"] == file.read_bytes()
