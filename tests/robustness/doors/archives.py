"""Archives of downloads, as prepare reads them, and MATLAB files within."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io

from segnext_jax.preparation.archives import ArchiveMember
from segnext_jax.preparation.folders import ArchiveFolder
from segnext_jax.preparation.matlab_files import read_label_map
from tests.robustness import mutations
from tests.robustness.case import Case

_SUFFIXES = {".tar": "w", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write an archive."""
    if rng.random() < 0.2:
        return _matlab_file(rng, folder)
    suffix = str(rng.choice([".zip", *_SUFFIXES]))
    members = {"a/1.jpg": rng.bytes(700), "a/2.png": bytes(900), "b": b""}
    choice = int(rng.integers(8))
    what, is_wrong = "as it should be", False
    if choice == 0:
        members |= {"../../evil": b"x", "/etc/evil": b"y", "a//../..": b"z", ".": b""}
        what = "with paths that leave"
    elif choice == 1:
        inner = b"x"
        for depth in range(int(rng.choice([1, 6, 40]))):
            inner = _pack({f"{depth}.tar": inner}, ".tar")
        members["in.tar"] = inner
        what = "with tars within"
    data = _pack(members, suffix)
    if choice == 2:
        what, data = "cut", mutations.cut(rng, data)
        # Of a tar, the end may be missing, and a cut between members is not seen.
        is_wrong = suffix != ".tar" or len(data) < 3500 and len(data) % 512 > 0
    elif choice == 3:
        what, suffix, data, is_wrong = _bomb(rng)
    elif choice >= 4:
        what, data = mutations.mutate(rng, data)
    path = folder / f"archive{suffix}"
    path.write_bytes(data)

    def read() -> None:
        files = ArchiveFolder(path, folder).files()
        for file in files.values():
            assert isinstance(file, ArchiveMember)
            file.read_bytes(20)
            file.read_bytes()
        assert [p.name for p in folder.iterdir()] == [path.name], (
            "something was written"
        )

    return Case(f"{suffix}, {what}", read, is_wrong)


def _pack(members: dict[str, bytes], suffix: str) -> bytes:
    file = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=file, mode=_SUFFIXES[suffix]) as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _bomb(rng: np.random.Generator) -> tuple[str, str, bytes, bool]:
    choice = int(rng.integers(3))
    if choice == 0:
        data = gzip.compress(bytes(2**24), 1) * 40
        return "640 MiB of zeros", ".tar.gz", data, True
    if choice == 1:
        data = _pack({"a.png": bytes(2**26)}, ".zip")
        false = struct.pack("<I", int(rng.choice(mutations.LARGE[:-1])))
        data = data.replace(struct.pack("<I", 2**26), false)
        return "of a false size", ".zip", data, True
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512 & (1 << 96) - 1).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return "of a negative size", ".tar", bytes(header) + bytes(1024), True


def _matlab_file(rng: np.random.Generator, folder: Path) -> Case:
    file = io.BytesIO()
    labels = rng.integers(0, 400, (9, 13)).astype(np.uint16)
    is_compressed = bool(rng.integers(2))
    scipy.io.savemat(file, {"LabelMap": labels}, do_compression=is_compressed)
    data, what, is_wrong = file.getvalue(), "as it should be", False
    if rng.random() < 0.3:
        what, data, is_wrong = "cut", mutations.cut(rng, data), True
    else:
        what, data = mutations.mutate(rng, data)
    return Case(
        f".mat, {what}", lambda: read_label_map(data, ("LabelMap",), "a.mat"), is_wrong
    )
