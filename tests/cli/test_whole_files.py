import os

import pytest

from segnext_jax.cli import whole_files
from segnext_jax.cli.whole_files import whole_file, whole_folder


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_has_its_old_content_until_the_new_is_whole(tmp_path, is_durable):
    path = tmp_path / "deep" / "a.npz"
    for content in (b"one", b"two"):
        with whole_file(path, is_durable=is_durable) as partial:
            assert partial.suffix == ".npz" and partial.parent == path.parent
            partial.write_bytes(content)
            assert not path.exists() or path.read_bytes() == b"one"
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # Nothing was written.
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_permissions_and_links_are_kept(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with whole_file(link) as partial:
        partial.write_text("new")
    assert link.is_symlink() and path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_must_last_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, synchronised = tmp_path / "a", []

    def fsync(descriptor):
        synchronised.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))

    monkeypatch.setattr(whole_files.os, "fsync", fsync)
    with whole_file(path, is_durable=True) as partial:
        partial.write_text("new")
    assert synchronised == [(str(partial), False), (str(tmp_path), True)]


def test_a_folder_is_replaced_or_stays(tmp_path):
    path = tmp_path / "deep" / "folder"
    for content in ("one", "two"):
        with whole_folder(path) as partial:
            (partial / content).write_text(content)
        assert [p.name for p in path.iterdir()] == [content]
    with pytest.raises(RuntimeError), whole_folder(path) as partial:
        (partial / "three").write_text("half")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["two"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
@pytest.mark.parametrize(
    "fail",
    [
        lambda path: (path / "none" / "a").read_bytes(),
        lambda path: int(f"{path} is no number"),
    ],
)
def test_an_error_names_what_the_user_named(whole, fail, tmp_path):
    path = tmp_path / "out"
    with pytest.raises((OSError, ValueError)) as error, whole(path) as partial:
        fail(partial)
    assert str(path) in str(error.value) and ".partial" not in str(error.value)
