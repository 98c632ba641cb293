"""A run whose folder lies in a bucket: it works in a local folder, and brings it there.

Nothing else of a training knows of buckets. What a kill loses is what it loses on a
disk: all that was written before the newest checkpoint is in the bucket with it, and
the restart does the steps after it again.
"""

import contextlib
import logging as python_logging
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator

import jax
from absl import logging

from segnext_jax.checkpoints.integrity import CHECKSUMS_FILE
from segnext_jax.checkpoints.lock import BEAT_SECONDS, LOCK_FILE, BucketLock
from segnext_jax.checkpoints.reading import CHECKPOINTS
from segnext_jax.cli import processes, storage
from segnext_jax.cli.whole_files import naming

# Between checkpoints small files are brought as often, for people who look on.
_SECONDS_BETWEEN = 60.0
_SMALL_BYTES = 2**22


class BucketRun:
    """Keeps the folder of a run in a bucket as the local one is.

    Attributes:
      folder: The local folder.
    """

    def __init__(self, address: pathlib.Path, folder: pathlib.Path) -> None:
        """Lock the run, and fetch what a training reads of it.

        Args:
          address: The run's folder in the bucket.
          folder: The local one; made where there is a run.

        Raises:
          ValueError: If another training holds the lock.
          BucketError: If the bucket cannot be reached.
        """
        self.folder = folder
        self._address = address
        # What is in the bucket as it is here: size and time by name.
        self._known: dict[str, tuple[int, int]] = {}
        # What a killed save or deletion has left.
        self._cut: set[str] = set()
        self._bringing = threading.Lock()
        self._end = threading.Event()
        self._lost: OSError | None = None
        self._has_failed = False
        self._lock = BucketLock(address) if jax.process_index() == 0 else None
        self._threads: list[threading.Thread] = []
        try:
            processes.wait_for_others("locked")
            with self._noting():
                self._fetch()
            processes.wait_for_others("fetched")
        except BaseException:
            self.close()
            raise
        if self._lock is not None:
            acts = {self._beat: BEAT_SECONDS, self._bring_small: _SECONDS_BETWEEN}
            for job in acts.items():
                thread = threading.Thread(target=self._repeat, args=job, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _fetch(self) -> None:
        """Fetch files of the run itself and its whole checkpoints."""
        names = [name for name in storage.listed(self._address) if name != LOCK_FILE]
        seals = {name for name in names if name.endswith(f"/{CHECKSUMS_FILE}")}
        wanted = []
        for name in names:
            parts = name.split("/")
            if parts[0] != CHECKPOINTS and len(parts) > 1:
                # That it is there is enough to tell a run from other folders.
                (self.folder / parts[0]).mkdir(parents=True, exist_ok=True)
            elif len(parts) == 1 or f"{'/'.join(parts[:2])}/{CHECKSUMS_FILE}" in seals:
                wanted.append(name)
            else:
                self._cut.add(name)
        if wanted:
            storage.fetch(self._address, self.folder, wanted)
            self._known = {name: _version(self.folder / name) for name in wanted}

    def check(self) -> None:
        """Refuse to go on if another training has taken the run.

        Raises:
          FileNotFoundError: If it has.
        """
        if self._lost is not None:
            raise self._lost

    def bring(self, *, only_small: bool = False) -> None:
        """Make the bucket what the local folder is: new files first, seals last.

        Args:
          only_small: Whether to leave out checkpoints, large files, and deletions.

        Raises:
          BucketError: If the bucket cannot be reached, or refuses.
          FileNotFoundError: If another training has taken the run.
        """
        if self._lock is None:
            return
        with self._bringing, self._noting():
            self._lock.check()
            found = dict(self._files())
            changed = {n: v for n, v in found.items() if self._known.get(n) != v}
            if only_small:
                changed = {
                    name: version
                    for name, version in changed.items()
                    if version[0] <= _SMALL_BYTES and not name.startswith(CHECKPOINTS)
                }
            files = {name: self.folder / name for name in changed}
            storage.upload(self._address, files)
            self._known |= changed
            if not only_small:
                gone = (self._known.keys() | self._cut) - found.keys()
                storage.remove(self._address, gone)
                self._known, self._cut = found, set()

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            # Hidden files and orbax's folders are being written.
            is_partial = ".orbax-checkpoint-tmp" in name or "/." in f"/{name}"
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not is_partial and name != LOCK_FILE:
                    yield name, _version(path)

    def _repeat(self, act: Callable[[], None], seconds: float) -> None:
        """Do something until the end; say once that it fails."""
        is_failing = False
        while not self._end.wait(seconds):
            try:
                act()
                is_failing = False
            except OSError as error:
                if not is_failing and not self._end.is_set():
                    logging.warning("%s The training goes on until a save.", error)
                is_failing = True

    def _beat(self) -> None:
        assert self._lock is not None
        try:
            with self._noting():
                self._lock.beat()
        except FileNotFoundError as error:
            self._lost = error

    def _bring_small(self) -> None:
        if not self._bringing.locked():  # Else a checkpoint brings all.
            self.bring(only_small=True)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Note whether the store has failed when it was last asked."""
        try:
            yield
        except storage.BucketError:
            self._has_failed = True
            raise
        self._has_failed = False

    def close(self) -> None:
        """Release the lock; of a store that has failed nothing more is asked.

        Each question takes gcsfs half a minute there. The lock lapses.
        """
        self._end.set()
        for thread in self._threads:
            if not self._has_failed:
                thread.join()
        if self._lock is not None and not (self._lost or self._has_failed):
            with contextlib.suppress(storage.BucketError):
                self._lock.close()


@contextlib.contextmanager
def opened(workdir: pathlib.Path) -> Iterator[tuple[pathlib.Path, BucketRun | None]]:
    """Yield the folder that a training works in, and the run in a bucket if it is one.

    Errors and the log name the address.

    Raises:
      ValueError: If another training writes into the run.
      BucketError: If the bucket cannot be reached, or refuses.
    """
    if not storage.is_bucket(workdir):
        yield workdir, None
        return
    with tempfile.TemporaryDirectory(
        prefix=storage.SCRATCH, ignore_cleanup_errors=True
    ) as scratch:
        folder = pathlib.Path(scratch, workdir.name)
        with naming(workdir, folder), _named_in_log(workdir, folder):
            run = BucketRun(workdir, folder)
            try:
                try:
                    yield folder, run
                except FloatingPointError:
                    run.bring()  # What tells of it.
                    raise
                run.bring()
            finally:
                run.close()


@contextlib.contextmanager
def _named_in_log(address: pathlib.Path, folder: pathlib.Path) -> Iterator[None]:
    def name(record: python_logging.LogRecord) -> bool:
        text = record.getMessage()
        if str(folder) in text:
            record.msg, record.args = text.replace(str(folder), str(address)), ()
        return True

    handler = logging.get_absl_handler()
    handler.addFilter(name)
    try:
        yield
    finally:
        handler.removeFilter(name)


def _version(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
