"""From an official download to a prepared data set: TFDS, ArrayRecord, no TensorFlow.

Each `data/<set>/prepare.py` is one subclass of `SegmentationBuilder` and one call of
`preparation.main`. A prepared example holds

    image     the photograph's own file contents, untouched (JPEG or PNG)
    label     8-bit grey PNG of train ids, 255 = ignored
    image_id  the name of the photograph without suffix
    height, width  size of both in pixels

and the folder's metadata hold classes, colours, ignore label and mapping version.
"""

import io
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from segnext_jax.datasets.decode import (
    check_labels,
    check_sizes,
    decode_image,
    decode_label,
    encode_label,
)
from segnext_jax.datasets.raw_files import PreparationError, read_file
from segnext_jax.datasets.spec import DatasetSpec


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Turn the official files of one data set into prepared examples.

    A subclass sets the class attributes and finds the files; it overrides `load` where
    a pair is more than two files and a table of ids.

    Attributes:
        spec: The data set; its name and version are the folder that is written.
        download_url: Archive that is fetched when no folder of files is given; empty
            where the licence asks for a download by hand.
        expected_tree: What `--raw_dir` must look like, for messages.
        train_id_of: Train id of each raw id, for sets whose masks hold other ids.
    """

    spec: ClassVar[DatasetSpec]
    download_url: ClassVar[str] = ""
    expected_tree: ClassVar[str] = ""
    train_id_of: ClassVar[dict[int, int]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take name and version from the spec."""
        cls.name = cls.spec.name
        cls.VERSION = tfds.core.Version(cls.spec.version)
        super().__init_subclass__(skip_registration=True, **kwargs)

    def __init__(
        self, *, data_dir: str | Path, raw_dir: str | Path | None = None
    ) -> None:
        """Bind the builder to its folders.

        Args:
            data_dir: Folder of all prepared data sets.
            raw_dir: Folder of the official files; None to download them.
        """
        self.raw_dir = Path(raw_dir).expanduser() if raw_dir else None
        # Also where `download_and_prepare` is called without `preparation.prepare`.
        super().__init__(data_dir=str(data_dir), file_format="array_record")

    def find_examples(self, root: Path) -> dict[str, Sequence[Any]]:
        """List the examples of each split in their natural order.

        Args:
            root: The folder of the official files.

        Returns:
            `RawExample`s, or whatever `load` of the subclass takes, by split name.

        Raises:
            PreparationError: The folder is not the expected tree.
        """
        raise NotImplementedError

    def load(self, example: Any) -> tuple[str, bytes, UInt8[np.ndarray, "h w"]]:
        """Read one example.

        Args:
            example: An element of a sequence returned by `find_examples`.

        Returns:
            The image id, the file contents of the photograph, and the train ids.

        Raises:
            PreparationError: A file is missing or cannot be decoded, or the mask
                holds an id that `train_id_of` does not know.
        """
        image = read_file(example.image)
        raw = decode_label(read_file(example.label), str(example.label))
        if not self.train_id_of:
            return example.image_id, image, raw
        table = np.full(256, -1, np.int16)
        for raw_id, train_id in self.train_id_of.items():
            table[raw_id] = train_id
        labels = table[raw]
        if labels.min() < 0:
            unknown = np.unique(raw[labels < 0]).tolist()
            raise PreparationError(
                f"{example.label}: raw ids of {self.spec.name} are "
                f"{sorted(self.train_id_of)}: found {unknown}. Correct the mask (or "
                "is this another data set?)."
            )
        return example.image_id, image, labels.astype(np.uint8)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.spec.name} with {self.spec.num_classes} classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png"
                    ),
                    "image_id": tfds.features.Text(),
                    "height": tfds.features.Scalar(np.int32),
                    "width": tfds.features.Scalar(np.int32),
                }
            ),
            metadata=tfds.core.MetadataDict(
                classes=list(self.spec.classes),
                colours=[list(colour) for colour in self.spec.colours],
                ignore_label=self.spec.ignore_label,
                mapping_version=self.spec.version,
            ),
            # Examples stay in the order of their names; training shuffles anyway.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        root = self.raw_dir or self._download(dl_manager)
        if not root.exists():
            raise PreparationError(
                f"no such folder: {root}. {self._remedy()}",
            )
        splits = self.find_examples(root)
        for split, examples in splits.items():
            if not len(examples):
                raise PreparationError(
                    f"split {split!r} of {self.spec.name} has no example in {root}. "
                    f"{self._remedy()}"
                )
        return {split: self._generate_examples(e) for split, e in splits.items()}

    def _generate_examples(
        self, examples: Sequence[Any]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in enumerate(examples):
            image_id, image, labels = self.load(example)
            self._check_pair(image_id, image, labels)
            yield (
                index,
                {
                    "image": io.BytesIO(image),
                    "label": io.BytesIO(encode_label(labels)),
                    "image_id": image_id,
                    "height": labels.shape[0],
                    "width": labels.shape[1],
                },
            )

    def _check_pair(
        self, image_id: str, image: bytes, labels: UInt8[np.ndarray, "h w"]
    ) -> None:
        check_sizes(decode_image(image, image_id), labels, image, image_id)
        check_labels(labels, self.spec.num_classes, self.spec.ignore_label, image_id)

    def _download(self, dl_manager: Any) -> Path:
        if not self.download_url:
            raise PreparationError(
                f"{self.spec.name} must be downloaded by hand. {self._remedy()}"
            )
        try:
            # TFDS tries ten times, for minutes: ask once whether there is a way at all.
            request = urllib.request.Request(self.download_url, method="HEAD")
            urllib.request.urlopen(request, timeout=20).close()
            return Path(dl_manager.download_and_extract(self.download_url))
        except Exception as error:
            # TFDS lets through whatever requests, urllib and its promises raise.
            raise PreparationError(
                f"could not download {self.download_url} ({one_line(error)}). "
                f"{self._remedy()}"
            ) from error

    def _log_download_bytes(self) -> None:
        """Drop TFDS's line of unknown sizes."""

    def _log_download_done(self) -> None:
        """Drop TFDS's line; `main` says what was prepared, and where."""

    def _remedy(self) -> str:
        source = f"Download {self.download_url} by hand, unpack it and " * bool(
            self.download_url
        )
        tree = f", which holds {self.expected_tree}" if self.expected_tree else ""
        return f"{source or 'Please '}pass --raw_dir=FOLDER{tree}."


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks, its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
