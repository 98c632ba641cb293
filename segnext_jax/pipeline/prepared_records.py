"""The records of a prepared set: opened when needed, faults in one sentence."""

import threading
from pathlib import Path
from typing import Any

from segnext_jax.datasets.prepared import damaged


def prepared_info(folder: Path) -> Any:
    """Return TFDS's description of a prepared set: its splits and metadata.

    Args:
        folder: Folder with TFDS's `dataset_info.json` and the record files.

    Raises:
        ValueError: The folder is damaged.
    """
    # Imported here: it takes a second, and nothing else needs it.
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(folder)).info
    except Exception as error:  # Whatever json, protobuf and TFDS raise.
        raise damaged(folder, error) from None


class PreparedRecords:
    """One split of a prepared set; picklable, without the open files."""

    def __init__(self, folder: Path, split: str, encoded: tuple[str, ...]) -> None:
        """Bind to a folder; the files are opened at the first access.

        Args:
            folder: Folder with TFDS's `dataset_info.json` and the record files.
            split: Name of the split.
            encoded: Features that stay as they are stored.
        """
        self.folder, self.split, self._encoded = folder, split, encoded
        self._lock = threading.Lock()
        self._records: Any = None

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._open())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return record `index`, in the order of preparation.

        Raises:
            ValueError: The files are damaged.
        """
        records = self._open()
        try:
            return records[index]
        except Exception as error:  # Whatever ArrayRecord, protobuf and TFDS raise.
            raise damaged(self.folder, error) from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave open files behind: the receiving process opens its own."""
        return PreparedRecords, (self.folder, self.split, self._encoded)

    def _open(self) -> Any:
        with self._lock:
            if self._records is None:
                import tensorflow_datasets as tfds

                try:
                    builder = tfds.builder_from_directory(str(self.folder))
                    # TFDS's logging decorator hides the signature from type checkers.
                    self._records = builder.as_data_source(  # pyright: ignore[reportCallIssue]
                        self.split,
                        decoders=dict.fromkeys(
                            self._encoded, tfds.decode.SkipDecoding()
                        ),
                    )
                    len(self._records)  # Reads the number of records of each file.
                except Exception as error:
                    raise damaged(self.folder, error) from None
        return self._records
