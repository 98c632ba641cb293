"""What every preparation does: open the download, check all files, write the shards.

`builder.SegmentationBuilder` (photographs with masks) and `classification.ImageNet`
(photographs with one class) say what an example is.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import tensorflow_datasets as tfds

from segnext_jax.cli.command import num_cores
from segnext_jax.cli.progress import followed
from segnext_jax.datasets.pairs import PreparationError, one_line
from segnext_jax.preparation.downloads import Download, fetch
from segnext_jax.preparation.folders import (
    ArchiveFolder,
    DiskFolder,
    RawFolder,
    SeveralFolders,
)
from segnext_jax.preparation.shard_writer import write_split

T = TypeVar("T")
R = TypeVar("R")


class RawBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Turn the files of a download into prepared examples, whatever they hold.

    Attributes:
      downloads: Archives that are fetched when no folder of files is given; empty
        where the licence asks for a download by hand.
      archive_names: Patterns of the archives that are read where the folder does not
        hold their files unpacked.
      expected_tree: What `--raw_dir` must look like, for messages.
      source: Where to get the files by hand, for messages.
    """

    VERSION = tfds.core.Version("1.0.0")
    downloads: ClassVar[tuple[Download, ...]] = ()
    archive_names: ClassVar[tuple[str, ...]] = ()
    expected_tree: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def __init__(
        self,
        *,
        data_dir: str | Path,
        raw_dir: str | Path | None = None,
        skip_broken: int = 0,
    ) -> None:
        """Bind the builder to its folders.

        Args:
          data_dir: Folder of all prepared data sets.
          raw_dir: Folder of the official files, or their archive; None to download.
          skip_broken: How many broken examples may be left out.

        Raises:
          PreparationError: If ``skip_broken`` is negative.
        """
        if skip_broken < 0:
            raise PreparationError(
                f"--skip_broken must not be negative: got {skip_broken}. Give the "
                "number of broken files that may be left out."
            )
        self.raw_dir = Path(raw_dir).expanduser() if raw_dir else None
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self._max_skipped = skip_broken
        # Also where `download_and_prepare` is called without `preparation.prepare`.
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add flags of this data set; `main` passes their values to `__init__`."""

    def options(self) -> dict[str, Any]:
        """Return what of the flags decides about the result, for the metadata."""
        return {}

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[Any]]:
        """List the examples of each split in their natural order.

        Args:
          root: The folder of the official files; archives count as folders.

        Returns:
          What `encode` takes, by split name.

        Raises:
          PreparationError: If the folder is not the expected tree.
        """
        raise NotImplementedError

    def encode(self, example: Any) -> dict[str, Any]:
        """Read and check one example; called in several threads.

        Args:
          example: An element of a sequence returned by `find_examples`.

        Raises:
          ValueError: If a file is missing, is broken, or does not fit its pair.
        """
        raise NotImplementedError

    def size_bytes(self, example: Any) -> int:
        """Return about how many bytes an example will take."""
        return 0

    def not_the_tree(self, root: RawFolder) -> PreparationError:
        """Return the error for a folder that does not hold the data set."""
        return PreparationError(
            f"{root} does not look like {self.name}: it should hold "
            f"{self.expected_tree}. Name another folder with --raw_dir."
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Generator]:
        splits = self._open()
        needed = sum(self.size_bytes(e) for split in splits.values() for e in split)
        check_free_space(Path(self.data_dir).parent, needed, "prepared files")
        return {
            split: self._generate_examples(split, examples)
            for split, examples in splits.items()
        }

    def _open(self) -> Mapping[str, Sequence[Any]]:
        scratch_dir = Path(self.data_dir).parent
        if self.raw_dir is None:
            if not self.downloads:
                raise PreparationError(
                    f"{self.name} must be downloaded by hand. {self._remedy()}"
                )
            try:
                archives = fetch(self.downloads, scratch_dir / "downloads")
            except PreparationError as error:
                raise PreparationError(f"{error} {self._remedy()}") from error
            folders = [ArchiveFolder(path, scratch_dir) for path in archives]
            return self._list(SeveralFolders(folders))
        if self.raw_dir.is_file():
            return self._list(ArchiveFolder(self.raw_dir, scratch_dir))
        if not self.raw_dir.is_dir():
            raise PreparationError(f"no such folder: {self.raw_dir}. {self._remedy()}")
        try:
            return self._list(DiskFolder(self.raw_dir))
        except PreparationError:
            if not self.archive_names:
                raise
        # What is unpacked counts first: an archive beside its own files is not read.
        return self._list(DiskFolder(self.raw_dir, self.archive_names, scratch_dir))

    def _list(self, root: RawFolder) -> Mapping[str, Sequence[Any]]:
        splits = self.find_examples(root)
        for split, examples in splits.items():
            if not len(examples):
                raise PreparationError(
                    f"split {split!r} of {self.name} has no example in {root}. "
                    f"{self._remedy()}"
                )
        return splits

    def _generate_splits(
        self, dl_manager: Any, download_config: Any
    ) -> list[tfds.core.SplitInfo]:
        """Replace TFDS's writer, which needs TensorFlow beyond 1 GB."""
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)
        features = cast(tfds.features.FeaturesDict, self.info.features)
        splits = self._split_generators(dl_manager)
        infos = []
        for split, examples in splits.items():
            template = self._get_filename_template(split_name=split)
            # An error ends the threads here, not whenever the garbage is collected.
            with contextlib.closing(examples):
                infos.append(write_split(split, examples, features, template))
        metadata["skipped"] = self.skipped
        metadata.update(self.options())
        return infos

    def _generate_examples(
        self, split: str, examples: Sequence[Any]
    ) -> Generator[dict[str, Any], None, None]:
        seen: set[str] = set()
        with contextlib.closing(map_in_order(self._try_to_encode, examples)) as encoded:
            total, description = len(examples), f"{self.name} {split}"
            for example in followed(encoded, total, description):
                if isinstance(example, ValueError):
                    self._skip(example)
                    continue
                if example["image_id"] in seen:
                    raise PreparationError(
                        "names of photographs must be unique in a split: "
                        f"{example['image_id']!r} occurs twice in {split!r} of "
                        f"{self.name}. Rename or delete one."
                    )
                seen.add(example["image_id"])
                yield example
        if not seen:
            raise PreparationError(
                f"split {split!r} of {self.name} has broken files only: "
                f"{self.skipped[0]}"
            )

    def _try_to_encode(self, example: Any) -> dict[str, Any] | ValueError:
        try:
            return self.encode(example)
        except ValueError as error:
            return error

    def _skip(self, error: ValueError) -> None:
        if not self._max_skipped:
            raise error
        # By message: the patches of one broken photograph count once.
        if (message := one_line(error)) not in self.skipped:
            self.skipped.append(message)
        if len(self.skipped) > self._max_skipped:
            raise PreparationError(
                f"more broken files than --skip_broken={self._max_skipped} allows: "
                + " | ".join(self.skipped)
            )

    def _log_download_bytes(self) -> None:
        """Drop TFDS's line of unknown sizes."""

    def _log_download_done(self) -> None:
        """Drop TFDS's line; `main` says what was prepared, and where."""

    def _remedy(self) -> str:
        urls = ", ".join(download.url for download in self.downloads)
        get = f"Get {urls or self.source} and" if urls or self.source else "Please"
        tree = f", which holds {self.expected_tree}" if self.expected_tree else ""
        packed = " (archives need not be unpacked)" if self.archive_names else ""
        return f"{get} pass --raw_dir=FOLDER{tree}{packed}."


def check_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to fill a disk, before anything is written.

    Args:
      folder: Where it will lie.
      needed_bytes: About how much.
      what: What it is, for the message.

    Raises:
      PreparationError: If the disk has less space.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes >= free:
        raise PreparationError(
            f"{folder} needs about {needed_bytes / 2**30:.1f} GiB for {what}: "
            f"{free / 2**30:.1f} GiB are free. Free some, or name another disk with "
            "--data_dir."
        )


def map_in_order(
    function: Callable[[T], R], items: Iterable[T]
) -> Generator[R, None, None]:
    """Apply a function in threads: decoding and encoding let go of Python's lock.

    Close the generator where the results may not be taken to their end.

    Args:
      function: What to do with an item.
      items: The items; few of them are taken ahead of the results.

    Yields:
      The results in the order of the items; an exception is raised in its turn.
    """
    waiting: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    num_threads = num_cores()
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
