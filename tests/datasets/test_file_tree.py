import os
import pathlib

import pytest

from segnext_jax.datasets.file_tree import walk_files


def names(folder):
    return [path.relative_to(folder).as_posix() for path in walk_files(folder)]


def test_links_are_followed_and_those_upwards_are_not(tmp_path):
    folder, other = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (folder / "b" / "1.jpg", other / "2.jpg", folder / ".c" / "3.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("a", "c"):  # The same folder by two names: its files count twice.
        (folder / name).symlink_to(other)
    (folder / "b" / "up").symlink_to(folder)
    (other / "self").symlink_to(other)
    (folder / "z.jpg").symlink_to("nowhere")
    assert names(folder) == ["a/2.jpg", "b/1.jpg", "c/2.jpg", "z.jpg"]


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    try:
        pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system has no other names than UTF-8")
    with pytest.raises(ValueError, match=r"must be UTF-8: .*a\\xe9\.jpg.* is not"):
        names(tmp_path)
