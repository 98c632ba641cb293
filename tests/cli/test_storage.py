"""Paths, files and folders in buckets, with real servers on loopback."""

import pathlib
import subprocess
import sys

import pytest
import s3fs

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


@pytest.mark.slow
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


@pytest.fixture
def without_what_was_asked():
    """No connection and no answer that was kept."""

    def forget():
        storage._check_reach.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("address", "variable", "sentence"),
    [
        ("gs://nobody/x", "", "^a bucket must exist: gs://nobody does not."),
        ("s3://nobody/x", "", "^a bucket must exist: s3://nobody does not."),
        (
            *("s3://b/x", "AWS_ACCESS_KEY_ID="),
            r"Unable to locate credentials. Look at the network, the rights and the "
            r"login \(aws configure,",
        ),
        (
            *("s3://b/x", "AWS_ENDPOINT_URL=http://127.0.0.1:9"),
            "^s3://b must be within reach, and its bucket must allow this: Could not "
            "connect to",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    networks, without_what_was_asked, monkeypatch, address, variable, sentence
):
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    if variable:
        monkeypatch.setenv(*variable.split("=", 1))
    with pytest.raises(storage.BucketError, match=sentence) as failure:
        storage.as_path(address)
    assert "\n" not in str(failure.value)


PROGRAM = """
import sys
from segnext_jax.cli import storage
sys.modules.update(gcsfs=None, s3fs=None)
for address in ("gs://b/x", "s3://b/x"):
    try:
        storage.as_path(address)
    except storage.BucketError as error:
        print(error)
"""


def test_a_package_that_is_missing_is_named():
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == [
        f"{scheme}:// needs {package}, which is not installed: pip install "
        f"'segnext_jax[{extra}]'."
        for scheme, package, extra in (("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3"))
    ]
    assert not told.stderr
