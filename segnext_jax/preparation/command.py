"""The command line of `data/<set>/prepare.py`, and what makes it safe to kill."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from segnext_jax.cli import command, storage
from segnext_jax.datasets.pairs import PreparationError, one_line
from segnext_jax.datasets.prepared import is_prepared, read_metadata, resolve_data_dir
from segnext_jax.preparation.builder import RawBuilder, check_free_space


def prepare(builder: RawBuilder) -> bool:
    """Prepare a data set unless that has been done.

    TFDS writes into a folder `incomplete.*` and renames it at the end, so that a folder
    with the final name is whole; what a killed preparation left is removed first.

    Args:
      builder: The data set, bound to its folders.

    Returns:
      Whether anything was written.

    Raises:
      ValueError: If the files are not those of the data set, or another process is
        preparing the same data set.
      OSError: If a folder cannot be read or written, or the disk is full.
    """
    target = Path(builder.data_dir)
    if is_prepared(target):
        _check_options(builder)
        return False
    if target.exists():
        raise PreparationError(
            f"{target} is there but is no prepared data set. Delete it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.parent / ".preparing.lock"):
        _remove_leftovers(target)
        if builder.raw_dir is None:
            # Photographs are stored as they come, so as much again is prepared.
            size = sum(download.size_bytes for download in builder.downloads)
            check_free_space(target.parent, 2 * size, "downloads and prepared files")
        builder.download_and_prepare()
    return True


def main(
    builder_class: type[RawBuilder], arguments: Sequence[str] | None = None
) -> int:
    """Run the command line of a `prepare.py`.

    Args:
      builder_class: The data set.
      arguments: Command-line arguments; None for those of the process.

    Returns:
      The exit status: 0 prepared now or before, 1 refused with one sentence.
    """
    parser = command.Parser(
        f"prepare {builder_class.name}",
        f"Prepare {builder_class.name}: check every file and write ArrayRecord.",
    )
    parser.add_argument(
        "--raw_dir",
        help="folder of the official files"
        + (f": {builder_class.expected_tree}" if builder_class.expected_tree else "")
        + ", unpacked or as archives" * bool(builder_class.archive_names)
        + "; downloaded when left out" * bool(builder_class.downloads),
    )
    parser.add_argument(
        "--data_dir",
        help="folder of all prepared data sets; by default $TFDS_DATA_DIR or "
        "~/tensorflow_datasets",
    )
    parser.add_argument(
        "--skip_broken",
        type=int,
        default=0,
        metavar="N",
        help="leave out and list up to N broken files instead of stopping at the "
        "first (default: 0)",
    )
    builder_class.add_flags(parser)
    options = vars(parser.parse_args(arguments))
    command.set_up_logging()
    try:
        data_dir = resolve_data_dir(options.pop("data_dir"))
        storage.refuse_bucket(data_dir, "prepared data")
        storage.refuse_bucket(options["raw_dir"] or "", "official files")
        builder = builder_class(data_dir=data_dir, **options)
        target = Path(builder.data_dir)
        if not is_prepared(target):
            sys.stdout.write(f"preparing {builder.name} in {target}\n")
            sys.stdout.flush()
        if not prepare(builder):
            sys.stdout.write(
                f"{builder.name} is already prepared in {target} (delete that folder "
                "to prepare it again).\n"
            )
            return 0
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1
    counts = ", ".join(
        f"{info.num_examples} {name}" for name, info in builder.info.splits.items()
    )
    for note in builder.notes:
        sys.stdout.write(f"note: {note}\n")
    for reason in builder.skipped:
        sys.stdout.write(f"skipped: {reason}\n")
    sys.stdout.write(f"{builder.name} is prepared in {target}: {counts}.\n")
    return 0


def _check_options(builder: RawBuilder) -> None:
    """Refuse to pass one preparation off as another."""
    folder = Path(builder.data_dir)
    has_metadata = (folder / "metadata.json").is_file()
    metadata = read_metadata(folder) if has_metadata else {}
    wanted = builder.options()
    found = {name: metadata.get(name) for name in wanted}
    if wanted != found:
        raise PreparationError(
            f"{builder.data_dir} was prepared with other options: it has {found}, "
            f"asked for are {wanted}. Delete it, or name another --data_dir."
        )


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process dies."""
    with path.open("w") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise PreparationError(
                f"another process is preparing {path.parent}. Wait until it has ended."
            ) from None
        yield


def _lock(file: IO[str]) -> None:
    """Lock an open file, or raise what the system raises where another has."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_leftovers(target: Path) -> None:
    for leftover in target.parent.glob(f"incomplete.*_{target.name}"):
        shutil.rmtree(leftover)
