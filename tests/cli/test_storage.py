"""Paths, files and folders in buckets, with real servers on loopback."""

import os
import pathlib
import subprocess
import sys

import pytest

from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import whole_file, whole_folder


def test_a_local_path_stays_one(tmp_path):
    for path in (tmp_path, "a/gs:/b", "hf://user/name", ""):
        assert type(storage.as_path(path)) is type(tmp_path)
        assert storage.as_path(path) == pathlib.Path(path)


def test_an_address_keeps_its_slashes_whatever_pathlib_does(bucket):
    path = storage.as_path(pathlib.Path(bucket)) / "a.txt"
    assert str(path) == f"{bucket}/a.txt"
    assert path.absolute() == path.resolve() == storage.as_path(path)
    assert (path.name, path.suffix, str(path.parent)) == ("a.txt", ".txt", bucket)


def test_files_are_whole_or_what_they_were(bucket):
    path = storage.as_path(f"{bucket}/folder/a.txt")
    with whole_file(path) as partial:
        partial.write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("new")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert [str(found) for found in path.parent.glob("*.txt")] == [str(path)]
    storage.append_line(path, b"er")
    assert path.read_text() == "older\n"


def test_a_folder_takes_the_place_of_the_old_one(bucket):
    folder = storage.as_path(f"{bucket}/folder")
    for names in (["a/b", "checksums.json"], ["c", "checksums.json"]):
        with whole_folder(folder) as partial:
            for name in names:
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_text(name)
        assert storage.listed(folder) == names
    with storage.local(folder, without=["a"]) as copy:
        assert (copy / "c").read_text() == "c"
    assert not copy.exists()


def test_a_cut_folder_has_no_seal(bucket, networks):
    folder = storage.as_path(f"{bucket}/folder")
    network = networks[bucket[:2]]
    network.cut_after = 2_000_000
    with (
        pytest.raises(storage.BucketError, match=f"{folder} must be within reach"),
        whole_folder(folder) as partial,
    ):
        for name in ("a", "b", "c", "d"):
            (partial / name).write_bytes(bytes(1_000_000))
        (partial / "checksums.json").write_text("{}")
    network.mend()
    assert "checksums.json" not in storage.listed(folder)


test_a_cut_folder_has_no_seal = pytest.mark.slow(test_a_cut_folder_has_no_seal)

PROGRAM = """
import sys
from segnext_jax.cli import storage
sys.modules.update(dict.fromkeys(sys.argv[2:]))
try:
    storage.as_path(sys.argv[1])
except storage.BucketError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("address", "missing", "variables", "sentence"),
    [
        ("gs://nobody/x", (), {}, "a bucket must exist: gs://nobody does not."),
        ("s3://nobody/x", (), {}, "a bucket must exist: s3://nobody does not."),
        (
            "gs://b/x",
            ("gcsfs",),
            {},
            "gs:// needs gcsfs, which is not installed: pip "
            "install 'segnext_jax[gcs]'.",
        ),
        (
            "s3://b/x",
            ("s3fs",),
            {},
            "s3:// needs s3fs, which is not installed: pip install 'segnext_jax[s3]'.",
        ),
        (
            "s3://b/x",
            (),
            {"AWS_ACCESS_KEY_ID": ""},
            "Unable to locate credentials. "
            "Look at the network, the rights and the login (aws configure,",
        ),
        (
            "s3://b/x",
            (),
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "s3://b must be "
            "within reach, and its bucket must allow this: Could not connect to",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    networks, address, missing, variables, sentence
):
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, address, *missing],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sentence in told.stdout and told.stdout.count("\n") == 1
    assert not told.stderr
