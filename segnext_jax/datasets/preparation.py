"""The command line of `data/<set>/prepare.py`, and what makes it safe to kill."""

import argparse
import contextlib
import fcntl
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from segnext_jax.datasets.builder import SegmentationBuilder, one_line
from segnext_jax.datasets.prepared import is_prepared, prepared_dir, resolve_data_dir
from segnext_jax.datasets.raw_files import PreparationError


def prepare(builder: SegmentationBuilder) -> bool:
    """Prepare a data set unless that has been done.

    TFDS writes into a folder `incomplete.*` and renames it at the end, so that a folder
    with the final name is whole; what a killed preparation left is removed first.

    Args:
        builder: The data set, bound to its folders.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: The files are not what they should be, or another process is
            preparing the same data set.
        OSError: A folder cannot be read or written, or the disk is full.
    """
    target = Path(builder.data_dir)
    if is_prepared(target):
        return False
    if target.exists():
        raise PreparationError(
            f"{target} is there but is no prepared data set. Delete it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.parent / ".preparing.lock"):
        _remove_leftovers(target)
        builder.download_and_prepare()
    return True


def main(
    builder_class: type[SegmentationBuilder], arguments: Sequence[str] | None = None
) -> int:
    """Run the command line of a `prepare.py`.

    Args:
        builder_class: The data set.
        arguments: Command-line arguments; None for those of the process.

    Returns:
        The exit status: 0 prepared now or before, 1 refused with one sentence.
    """
    spec = builder_class.spec
    parser = argparse.ArgumentParser(
        description=f"Prepare {spec.name}: {spec.num_classes} classes, ArrayRecord.",
    )
    parser.add_argument(
        "--raw_dir",
        help="folder of the official files"
        + (f": {builder_class.expected_tree}" if builder_class.expected_tree else "")
        + ("; downloaded when left out" if builder_class.download_url else ""),
    )
    parser.add_argument(
        "--data_dir",
        help="folder of all prepared data sets; by default $TFDS_DATA_DIR or "
        "~/tensorflow_datasets",
    )
    options = parser.parse_args(arguments)
    data_dir = resolve_data_dir(options.data_dir)
    target = prepared_dir(spec, data_dir)
    if is_prepared(target):
        sys.stdout.write(
            f"{spec.name} is already prepared in {target} (delete that folder to "
            "prepare it again).\n"
        )
        return 0
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    sys.stdout.write(f"preparing {spec.name} in {target}\n")
    sys.stdout.flush()
    try:
        builder = builder_class(data_dir=data_dir, raw_dir=options.raw_dir)
        prepare(builder)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1
    counts = ", ".join(
        f"{info.num_examples} {name}" for name, info in builder.info.splits.items()
    )
    sys.stdout.write(f"{spec.name} is prepared in {target}: {counts}.\n")
    return 0


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreparationError(
                f"another process is preparing {path.parent}. Wait until it has ended."
            ) from None
        yield


def _remove_leftovers(target: Path) -> None:
    for leftover in target.parent.glob(f"incomplete.*_{target.name}"):
        shutil.rmtree(leftover)
