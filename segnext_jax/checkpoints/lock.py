"""One writer: a run's folder belongs to one training at a time."""

import errno
import json
import os
import pathlib
import socket
import time

from absl import logging

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
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
        os.truncate(self._handle, 0)
        os.write(self._handle, json.dumps(holder).encode())

    def _take(self, handle: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self._workdir} is written into by another training, {self._holder()}"
                ". Wait for its end, end it, or give another --workdir. If its machine "
                f"is gone, delete {self._path}."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logging.warning(
                "The file system of %s has no locks (%s): see to it that no other "
                "training writes into it.",
                *(self._workdir, error.strerror),
            )

    def _holder(self) -> str:
        try:
            holder = json.loads(self._path.read_bytes())
            return "process {pid} on {host} since {since}".format(**holder)
        except (OSError, ValueError, KeyError, TypeError):
            return f"which {self._path} does not name"

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


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
