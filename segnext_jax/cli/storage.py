"""Where files lie: on local disks, or in buckets, ``gs://`` and ``s3://``.

`as_path` is the one way in: a local path stays a `pathlib.Path`; an address becomes a
path of etils' epath, which has the same methods. An object appears as a whole or not
at all. A folder has no such moment: its seal, the list of checksums, comes last and
goes first.
"""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# A pathlib.Path drops the second slash.
_ADDRESS = re.compile(r"(gs|gcs|s3|s3a|az|abfss?|hdfs):/{1,2}([^/].*)")
# Packages of fsspec, and what logs a user in.
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_EXTRAS = {"gs": "gcs", "s3": "s3"}
_LOGINS = {
    "gs": "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
# In this order: a folder without its configuration is none of ours, and one without
# its checksums is not whole.
_LAST = ("config.json", "SHA256SUMS", "checksums.json")
_NUM_THREADS = 16
SCRATCH = "segnext_jax-"


class BucketError(OSError):
    """A bucket that cannot be reached, or refuses."""


def as_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return a local path as it is, and an address as a path in its bucket.

    Raises:
      BucketError: If the bucket cannot be reached, or its package is not installed.
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    if match is None:
        return pathlib.Path(path)
    scheme, rest = match.groups()
    if scheme not in _PACKAGES:
        raise BucketError(
            f"the address of a bucket must begin with gs:// or s3://: got {path}. "
            "Mount another, and name the folder where it is mounted."
        )
    bucket, _, key = rest.rstrip("/").partition("/")
    # The first folder, to which alone a user may have rights.
    _check_reach(scheme, bucket, key.partition("/")[0] if "/" in key else "")
    return _path_class()(f"{scheme}://{bucket}", key)


def is_bucket(path: os.PathLike[str]) -> bool:
    """Tell whether `as_path` gave a path in a bucket."""
    return getattr(path, "is_in_bucket", False)


def refuse_bucket(path: str | os.PathLike[str], what: str) -> None:
    """Refuse the address of a bucket where files must be local.

    Args:
      path: What a user gave.
      what: What it is.

    Raises:
      ValueError: If it names a bucket.
    """
    match = _ADDRESS.fullmatch(os.fspath(path))
    if match is not None:
        raise ValueError(
            f"{what} must lie on a local disk, as training reads images in random "
            f"order, a few kilobytes at a time: got {'://'.join(match.groups())}. Copy "
            "it to a disk of each machine (gcloud storage cp -r, aws s3 cp "
            "--recursive), or mount the bucket with a cache (gcsfuse, mount-s3) and "
            "name that folder."
        )


@contextlib.contextmanager
def local(path: pathlib.Path, without: Iterable[str] = ()) -> Iterator[pathlib.Path]:
    """Yield a file or folder on the local disk: itself, or a copy for the block.

    Args:
      path: The file or folder.
      without: Folders in it that are not needed, if a copy must be fetched.
    """
    if not is_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        copy = pathlib.Path(scratch, path.name)
        if path.is_dir():
            left_out = tuple(f"{name}/" for name in without)
            names = [name for name in listed(path) if not name.startswith(left_out)]
            fetch(path, copy, names)
        else:
            copy.write_bytes(path.read_bytes())
        yield copy


@contextlib.contextmanager
def staged(path: pathlib.Path, *, is_folder: bool = False) -> Iterator[pathlib.Path]:
    """Yield a local path, whose content goes to a bucket when the block ends.

    If the block raises, what was there stays. A folder that was there is removed
    before the new one comes.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        partial = pathlib.Path(scratch, path.name)
        if is_folder:
            partial.mkdir()
        yield partial
        if not is_folder:
            upload(path.parent, {path.name: partial})
            return
        remove(path, listed(path))
        files = (file for file in partial.rglob("*") if file.is_file())
        upload(path, {file.relative_to(partial).as_posix(): file for file in files})


def listed(folder: pathlib.Path) -> list[str]:
    """Return the names of all objects below a folder of a bucket."""
    with _telling(folder):
        prefix = f"{key_of(folder)}/"
        found = _files(folder).find(key_of(folder))
        names = [name for name in found if name.startswith(prefix)]
        # Some tools mark a folder by an object of its name.
        return [name.removeprefix(prefix) for name in names if name[-1] != "/"]


def matching(pattern: pathlib.Path) -> list[pathlib.Path]:
    """Return the objects of a bucket whose names match a pattern."""
    with _telling(pattern):
        found = _files(pattern).glob(key_of(pattern))
    scheme = os.fspath(pattern).partition(":")[0]
    return [type(pattern)(f"{scheme}://{name}") for name in sorted(found)]


def fetch(folder: pathlib.Path, target: pathlib.Path, names: Iterable[str]) -> None:
    """Copy objects below a folder of a bucket into a local folder."""
    target.mkdir(parents=True, exist_ok=True)

    def fetch_one(name: str) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _files(folder).get_file(f"{key_of(folder)}/{name}", str(target / name))

    _each(folder, fetch_one, names)


def upload(folder: pathlib.Path, files: Mapping[str, pathlib.Path]) -> None:
    """Copy local files to names below a folder of a bucket, seals last."""

    def upload_one(name: str) -> None:
        _files(folder).put_file(str(files[name]), f"{key_of(folder)}/{name}")

    for names in _in_order(files):
        _each(folder, upload_one, names)


def remove(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Remove objects below a folder of a bucket, seals first."""

    def remove_one(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _files(folder).rm_file(f"{key_of(folder)}/{name}")

    for same in reversed(_in_order(names)):
        _each(folder, remove_one, same)


def write(path: pathlib.Path, content: bytes, *, is_new: bool = False) -> None:
    """Write an object.

    Raises:
      FileExistsError: If it must be new and is not; no other process can come between.
    """
    with _telling(path):
        mode = "create" if is_new else "overwrite"
        _files(path).pipe_file(key_of(path), content, mode=mode)


def append_line(path: pathlib.Path, line: bytes) -> None:
    """Append a line to a file, so that it lasts; an object is written anew."""
    if is_bucket(path):
        write(path, (path.read_bytes() if path.exists() else b"") + line + b"\n")
        return
    with path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _in_order(names: Iterable[str]) -> list[list[str]]:
    """Return what may come in any order, then each kind of seal, inner ones first."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name in names:
        last = name.rpartition("/")[2]
        rank = (_LAST.index(last), -name.count("/")) if last in _LAST else (-1, 0)
        groups.setdefault(rank, []).append(name)
    return [groups[rank] for rank in sorted(groups)]


def _each(folder: pathlib.Path, act: Any, names: Iterable[str]) -> None:
    """Act on all names at once; none begins after one has failed."""
    has_failed = threading.Event()

    def act_on(name: str) -> None:
        if not has_failed.is_set():
            try:
                act(name)
            except BaseException:
                has_failed.set()
                raise

    with _telling(folder), concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        for _ in pool.map(act_on, names):
            pass


@contextlib.contextmanager
def _telling(path: os.PathLike[str]) -> Iterator[None]:
    """Turn errors of a store, which have types of many libraries, into a sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist.") from error
    except (FileExistsError, BucketError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        login = _LOGINS[os.fspath(path).partition(":")[0]]
        raise BucketError(
            f"{path} must be within reach, and its bucket must allow this: "
            f"{lines[0].rstrip('.')}. Look at the network, the rights and the login "
            f"({login})."
        ) from error


def _files(path: pathlib.Path) -> Any:
    """Return fsspec's view of the store that holds a path."""
    import fsspec

    scheme = os.fspath(path).partition(":")[0]
    if scheme == "s3":
        _try_s3_again()
    return fsspec.filesystem(scheme)


@functools.cache
def _try_s3_again() -> None:
    """Let s3fs treat a connection that was refused or reset as one that was closed."""
    import botocore.exceptions
    import s3fs.core

    s3fs.core.add_retryable_error(botocore.exceptions.EndpointConnectionError)


def key_of(path: pathlib.Path) -> str:
    """Return the bucket and the object's name in it, as the libraries have them."""
    return os.fspath(path).partition("://")[2]


@functools.cache
def _path_class() -> Any:
    # One library, whether TensorFlow is there or not; and no question to a service of
    # buckets of other kinds.
    os.environ.setdefault("EPATH_USE_TF", "false")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config
    from etils import epath

    for scheme in (*_PACKAGES, "gcs"):
        # Other processes write, too.
        options = fsspec.config.conf.setdefault(scheme, {})
        options.setdefault("use_listings_cache", False)

    # A pathlib.Path for those who ask; epath's methods come first.
    class BucketPath(type(epath.Path("gs://")), pathlib.PosixPath):
        """A path whose errors are sentences, and which is absolute."""

        is_in_bucket = True

        def absolute(self) -> "BucketPath":
            return self

        def resolve(self, strict: bool = False) -> "BucketPath":
            return self

        def expanduser(self) -> "BucketPath":
            return self

        def mkdir(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: a folder is there if it holds an object."""

        def read_bytes(self: Any) -> bytes:  # By one request; epath needs more.
            return _files(self).cat_file(key_of(self), max_concurrency=1)

    def telling(name: str) -> Any:
        method = getattr(BucketPath, name)

        @functools.wraps(method)
        def told(self: Any, *args: Any, **kwargs: Any) -> Any:
            with _telling(self):
                found = method(self, *args, **kwargs)
                return iter(list(found)) if name in ("iterdir", "glob") else found

        return told

    of_files = ("read_bytes", "read_text", "write_bytes", "write_text", "unlink")
    for name in ("exists", "is_dir", "is_file", "iterdir", "glob", "stat", *of_files):
        setattr(BucketPath, name, telling(name))
    return BucketPath


@functools.cache
def _check_reach(scheme: str, bucket: str, key: str) -> None:
    """Ask once for an object, because other questions get a no for any reason."""
    address = _path_class()(f"{scheme}://{bucket}", key)
    try:
        with _telling(address):
            if scheme == "gs":
                query: Any = {"maxResults": 1, "prefix": key}
                _files(address).call("GET", "b/{}/o", bucket, **query)
            else:
                query = {"Bucket": bucket, "Prefix": key, "MaxKeys": 1}
                _files(address).call_s3("list_objects_v2", **query)
    except FileNotFoundError:
        raise BucketError(
            f"a bucket must exist: {scheme}://{bucket} does not. Make it, or correct "
            "the address."
        ) from None
    except BucketError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise BucketError(
            f"{scheme}:// needs {_PACKAGES[scheme]}, which is not installed: pip "
            f"install 'segnext_jax[{_EXTRAS[scheme]}]'."
        ) from error.__cause__
