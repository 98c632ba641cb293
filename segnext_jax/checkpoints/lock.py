"""One writer: a run's folder belongs to one training at a time."""

import errno
import json
import os
import pathlib
import secrets
import socket
import time

from absl import logging

from segnext_jax.cli import storage

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

LOCK_FILE = "lock"
# Errors of file systems without locks; some network file systems have none.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class WriterLock:
    """Holds the lock of a run's folder until it is closed or the process ends.

    The kernel keeps the lock, and ends it with the process that holds it, also by
    SIGKILL. On NFS, Linux passes it to the server, so that it holds between machines,
    unless the folder is mounted with ``nolock``. The file says who holds the lock. It
    is never deleted, because two other processes could then hold one lock each.
    """

    def __init__(self, workdir: pathlib.Path, *, is_writing: bool = True) -> None:
        """Take the lock.

        Args:
          workdir: The run's folder.
          is_writing: False in all but one of several processes, which take none.

        Raises:
          ValueError: If another training holds the lock.
        """
        self._workdir = workdir
        self._path = workdir / LOCK_FILE
        self._handle: int | None = None
        if not is_writing:
            return
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(self._handle)
        except BaseException:
            self.close()
            raise
        os.truncate(self._handle, 0)
        os.write(self._handle, json.dumps(_ourselves()).encode())

    def _take(self, handle: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(self._path) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logging.warning(
                "The file system of %s has no locks (%s): see to it that no other "
                "training writes into it.",
                *(self._workdir, error.strerror),
            )

    def check(self) -> None:
        """Refuse to go on if the folder is no longer there, or no longer this run's.

        Raises:
          FileNotFoundError: If the folder was moved, deleted or given to another run.
        """
        if self._handle is None:
            return
        try:
            is_there = os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise FileNotFoundError(
                f"{self._path} must stay while the run goes on: it is gone, with the "
                "run's folder or alone. What was written since is lost; start the run "
                "again where its folder is."
            )

    def close(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "WriterLock":
        """Return the lock, to be closed at the end of the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


# Seconds between two signs of life in a bucket, after how many without any a training
# is taken for dead, and between two looks at it.
BEAT_SECONDS = 15.0
LAPSE_SECONDS = 60.0
LOOK_SECONDS = 1.0


class BucketLock:
    """Stands for `WriterLock` in a bucket: an object that its holder writes anew.

    Whoever finds the object waits for the next sign of life. If one comes, there is
    another training; if none comes, the other one was killed, and the lock is taken
    over. Clocks of machines are not compared. One that was only cut off notices at its
    next sign of life, or before it brings a checkpoint, that the lock is another's, and
    ends.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        """Take the lock.

        Args:
          workdir: The run's folder in a bucket.

        Raises:
          ValueError: If another training holds the lock.
        """
        self._path = workdir / LOCK_FILE
        self._holder = {**_ourselves(), "token": secrets.token_hex(8), "beat": 0}
        seen = self._content()
        # Without a token the object is nobody's lock.
        if seen and (b'"token"' not in seen or not self._is_left(seen)):
            raise _taken(self._path)
        if seen:
            storage.remove(workdir, [LOCK_FILE])
        try:
            storage.write(self._path, self._own(), is_new=True)
        except FileExistsError:
            raise _taken(self._path) from None
        self.check()

    def _is_left(self, seen: bytes) -> bool:
        """Return whether the holder gives no sign of life, or ends."""
        logging.info(
            "%s is there: waiting up to %.0f s to learn whether its training lives.",
            *(self._path, LAPSE_SECONDS),
        )
        end = time.monotonic() + LAPSE_SECONDS
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            content = self._content()
            if content != seen:
                return not content
        return True

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
          FileNotFoundError: See `check`.
        """
        self.check()
        self._holder["beat"] += 1
        storage.write(self._path, self._own())

    def check(self) -> None:
        """Refuse to go on if the lock is no longer this training's.

        Raises:
          FileNotFoundError: If it was deleted, or another training has taken it.
        """
        if self._holder["token"].encode() not in self._content():
            raise FileNotFoundError(
                f"{self._path} must stay this training's while it goes on: it is gone, "
                f"or taken by another, {_holder(self._path)}. What this one has done "
                "since its last checkpoint is lost; see to it that one alone writes "
                "there."
            )

    def close(self) -> None:
        """Release the lock."""
        if self._holder["token"].encode() in self._content():
            storage.remove(self._path.parent, [LOCK_FILE])

    def _own(self) -> bytes:
        return json.dumps(self._holder).encode()

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""


def _ourselves() -> dict:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}


def _taken(path: pathlib.Path) -> ValueError:
    return ValueError(
        f"{path.parent} is written into by another training, {_holder(path)}. Wait for "
        "its end, end it, or give another --workdir. If its machine is gone, delete "
        f"{path}."
    )


def _holder(path: pathlib.Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return "process {pid} on {host} since {since}".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):
        return f"which {path} does not name"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
