"""Prepared sets: opened when needed, faults in one sentence."""

import threading
from pathlib import Path
from typing import Any

from segnext_jax.datasets.prepared import damaged


def prepared_info(folder: Path) -> Any:
    """Return TFDS's description of a prepared set: its splits and metadata.

    Args:
      folder: Folder with TFDS's `dataset_info.json` and the record files.

    Raises:
      ValueError: If the folder is damaged.
    """
    # Imported here: it takes a second, and nothing else needs it.
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(folder)).info
    except Exception as error:  # Whatever json, protobuf and TFDS raise.
        raise damaged(folder, error) from None


class PreparedSource:
    """Read one split of a prepared set; picklable, without the open files."""

    def __init__(self, folder: Path, split: str) -> None:
        """Bind to a folder; the files are opened at the first access.

        Args:
          folder: Folder with TFDS's `dataset_info.json` and the record files.
          split: Name of the split.
        """
        self.folder, self.split = folder, split
        self._lock = threading.Lock()
        self._records: Any = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._open())

    def __getitem__(self, index: int) -> Any:
        """Return example `index`, in the order of preparation.

        Its label is an encoded label map, or the number of a class.

        Raises:
          ValueError: If the files are damaged.
          IndexError: If there is no such example: it ends a loop over the source.
        """
        records = self._open()
        if index >= len(records):
            raise IndexError(index)
        try:
            record = records[index]
        except Exception as error:  # Whatever ArrayRecord, protobuf and TFDS raise.
            raise damaged(self.folder, error) from None
        label = record["label"]
        return {
            "image": record["image"],
            "label": label if isinstance(label, bytes) else int(label),
            "image_id": record["image_id"].decode(),
        }

    def __repr__(self) -> str:
        """Name the folder and the split."""
        return f"PreparedSource({str(self.folder)!r}, {self.split!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave open files behind: the receiving process opens its own."""
        return PreparedSource, (self.folder, self.split)

    def _open(self) -> Any:
        with self._lock:
            if self._records is None:
                import tensorflow_datasets as tfds

                try:
                    builder = tfds.builder_from_directory(str(self.folder))
                    features: Any = builder.info.features
                    encoded = {
                        name: tfds.decode.SkipDecoding()
                        for name, feature in features.items()
                        if isinstance(feature, tfds.features.Image)
                    }
                    # TFDS's logging decorator hides the signature from type checkers.
                    self._records = builder.as_data_source(
                        self.split,  # pyright: ignore[reportCallIssue]
                        decoders=encoded,
                    )
                    len(self._records)  # Reads the number of records of each file.
                except Exception as error:
                    raise damaged(self.folder, error) from None
        return self._records
