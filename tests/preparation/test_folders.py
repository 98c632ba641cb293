import zipfile

import pytest

from segnext_jax.datasets.pairs import match_pairs
from segnext_jax.preparation.folders import DiskFolder, SeveralFolders


@pytest.fixture
def root(tmp_path):
    for path in ("deep/x/data/img/1.jpg", "data/img/1.jpg", "data/ann/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("data/img/2.jpg", b"2")
        archive.writestr("data/list.txt", b"2")
    return tmp_path


def test_the_nearest_folder_is_found_first(root):
    found = [str(folder) for folder in DiskFolder(root).find("data/img")]
    assert found == [str(root), f"{root}/deep/x"]
    assert [str(f) for f in DiskFolder(root).find("img", "ann/1.png")] == [
        f"{root}/data"
    ]
    assert not list(DiskFolder(root).find("data/none"))


def test_five_levels_down_is_not_searched(tmp_path):
    (tmp_path / "1/2/3/4/5").mkdir(parents=True)
    assert next(DiskFolder(tmp_path).find("5"), None)
    assert not next(DiskFolder(tmp_path.parent).find(f"{tmp_path.name}/1/2/3/4/6"), 0)
    (tmp_path / "1/2/3/4/5/6").mkdir()
    assert not next(DiskFolder(tmp_path).find("6"), None)


def test_archives_are_searched_as_folders(root):
    folder = DiskFolder(root, ("*.zip",), root)
    found = next(folder.find("list.txt"))
    assert str(found) == f"{root}/more.zip/data"
    assert found.file("list.txt").read_bytes() == b"2"
    both = SeveralFolders([folder / "data", folder / "more.zip"])
    assert [str(f) for f in both.find("img")] == [
        f"{root}/data",
        f"{root}/more.zip/data",
    ]


def test_missing_folders_are_no_folders(root):
    folder = DiskFolder(root) / "data/none/below"
    assert not folder.is_dir() and folder.files() == {}
    assert (DiskFolder(root) / "data/img").is_dir()
    assert DiskFolder(root).file("data/img") is None


def test_pairs_of_folders_on_disk_and_of_paths_are_the_same(root):
    pairs = match_pairs(root / "data/img", root / "data/ann")
    (pair,) = match_pairs(DiskFolder(root / "data/img"), DiskFolder(root / "data/ann"))
    assert [pair] == pairs
    assert (pair.image_id, pair.image) == ("1", root / "data/img/1.jpg")
