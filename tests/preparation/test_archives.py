import gzip
import io
import os
import pathlib
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from segnext_jax.datasets.pairs import PreparationError, read_file, read_head
from segnext_jax.preparation.archives import index_archive
from segnext_jax.preparation.folders import ArchiveFolder, DiskFolder

CONTENTS = {
    "a/one.txt": b"1" * 5000,
    "a/b/two.bin": os.urandom(70_001),
    "three": b"",
}
SUFFIXES = (".zip", ".stored.zip", ".tar", ".tgz", ".tar.bz2", ".tar.xz")


def write(path: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    if path.suffix == ".zip":
        method = zipfile.ZIP_STORED if ".stored" in path.name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        return path
    mode = {".tar": "w", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_are_the_files_that_were_packed(suffix, tmp_path):
    folder = ArchiveFolder(write(tmp_path / f"x{suffix}", CONTENTS), tmp_path)
    files = folder.files()
    assert {path: file.read_bytes() for path, file in files.items()} == CONTENTS
    assert {path: file.size for path, file in files.items()} == {
        path: len(data) for path, data in CONTENTS.items()
    }
    assert [file.name for file in files.values()] == ["two.bin", "one.txt", "three"]
    assert str(files["a/b/two.bin"]) == f"{tmp_path}/x{suffix}/a/b/two.bin"
    for path, file in files.items():
        assert read_head(file, 20) == CONTENTS[path][:20]
    # A compressed tar is inflated where nobody sees it.
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_tars_in_a_tar_are_folders(tmp_path):
    inner = {f"n0{k}_{i}.JPEG": os.urandom(700 + i) for k in (1, 2) for i in range(3)}
    tars = {}
    for k in (1, 2):
        part = {name: x for name, x in inner.items() if name.startswith(f"n0{k}")}
        tars[f"n0{k}.tar"] = write(tmp_path / f"{k}.tar", part).read_bytes()
    outer = write(tmp_path / "train.tar", tars)
    folder = ArchiveFolder(outer, tmp_path)
    assert list(folder.children()) == ["n01", "n02"]
    assert {path: file.read_bytes() for path, file in folder.files().items()} == {
        f"{name[:3]}/{name}": data for name, data in inner.items()
    }


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_no_member_leaves_the_archive(suffix, tmp_path):
    contents = {"../../evil": b"x", "/etc/evil": b"y", "./a//b": b"z"}
    folder = ArchiveFolder(write(tmp_path / f"x{suffix}", contents), tmp_path)
    assert sorted(folder.files()) == ["a/b", "etc/evil", "evil"]
    assert len(list(tmp_path.iterdir())) == 1


def test_links_and_hidden_files_are_left_out(tmp_path):
    path = write(tmp_path / "x.tar", {"__MACOSX/a/._one": b"", "a/.DS_Store": b""})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("a/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert ArchiveFolder(path, tmp_path).files() == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 100, 0.6])
def test_a_part_of_an_archive_is_refused_by_name(suffix, keep, tmp_path):
    path = write(tmp_path / f"x{suffix}", CONTENTS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(PreparationError, match=r"x\..* is no whole .* archive"):
        index_archive(path, tmp_path)


@pytest.mark.parametrize("suffix", [".zip", ".stored.zip"])
def test_a_damaged_member_is_refused_by_name(suffix, tmp_path):
    path = write(tmp_path / f"x{suffix}", CONTENTS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF  # In the 70 kB of noise.
    path.write_bytes(data)
    files = ArchiveFolder(path, tmp_path).files()
    with pytest.raises(PreparationError, match=r"a/b/two\.bin.*archive"):
        files["a/b/two.bin"].read_bytes()
    assert files["a/one.txt"].read_bytes() == CONTENTS["a/one.txt"]


def test_only_archives_of_the_pattern_count_as_folders(tmp_path):
    write(tmp_path / "data.zip", CONTENTS)
    (tmp_path / "other.zip").write_bytes(b"no archive at all")
    assert sorted(DiskFolder(tmp_path).files()) == ["data.zip", "other.zip"]
    opened = DiskFolder(tmp_path, ("data*",), tmp_path)
    expected = {"other.zip", *(f"data.zip/{path}" for path in CONTENTS)}
    assert set(opened.files()) == expected


def test_a_member_inflates_to_what_is_promised_and_no_further(tmp_path):
    path = write(tmp_path / "x.zip", {"bomb.png": bytes(2**26)})
    whole = path.read_bytes()
    for promised in (1000, 2**32 - 2):
        size = struct.pack("<I", promised)
        path.write_bytes(whole.replace(struct.pack("<I", 2**26), size))
        (member,) = ArchiveFolder(path, tmp_path).files().values()
        tracemalloc.start()
        with pytest.raises(PreparationError, match="bomb.png: .* archive"):
            member.read_bytes()
        assert tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()


def test_a_compressed_tar_without_an_end_does_not_fill_the_disk(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(bytes(2**24)) * 40)
    with pytest.raises(PreparationError, match="x.tar.gz: .*100 times its size"):
        index_archive(path, tmp_path)


def test_tars_that_lead_nowhere_are_refused(tmp_path):
    contents = b"x"
    for depth in range(6):
        contents = write(tmp_path / "y.tar", {f"{depth}.tar": contents}).read_bytes()
    path = tmp_path / "x.tar"
    path.write_bytes(contents)
    with pytest.raises(PreparationError, match="more than 3 tars within each other"):
        index_archive(path, tmp_path)
    # Of a negative size, so that the next header is this one.
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512 & (1 << 96) - 1).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(header + bytes(1024))
    with pytest.raises(PreparationError, match=r"x\.tar: is no whole"):
        index_archive(path, tmp_path)


def test_what_could_be_read_for_ever_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    (tmp_path / "c.jpg").mkdir()
    for name in "abc":
        with pytest.raises(PreparationError, match="must be a regular file"):
            read_file(tmp_path / f"{name}.jpg")
    with (tmp_path / "d.jpg").open("wb") as file:
        file.truncate(2**31 + 1)  # A hole: no disk is used.
    with pytest.raises(PreparationError, match="at most 2,147,483,648 bytes: it has"):
        read_file(tmp_path / "d.jpg")


def test_a_tar_that_is_cut_within_a_header_is_refused(tmp_path):
    path = write(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2" * 512})
    whole = path.read_bytes()
    path.write_bytes(whole[:1300])  # The second member would be missing.
    with pytest.raises(PreparationError, match=r"x\.tar: is no whole"):
        index_archive(path, tmp_path)
    path.write_bytes(whole[:2048])  # All are there, the end is not.
    assert sorted(ArchiveFolder(path, tmp_path).files()) == ["a", "b"]
