"""Random access to examples: prepared data sets, and plain folders of files.

A source has `len()`, and `source[i]` is a dict of the encoded photograph (`image`,
bytes), its encoded label map (`label`, bytes) and its name (`image_id`). Sources are
picklable, so that worker processes can open the same files.
"""

import os
import threading
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from segnext_jax.datasets import DatasetSpec, prepared_dir
from segnext_jax.datasets.prepared import is_prepared, prepare_command

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_MASK_SUFFIXES = (".png",)


class Example(TypedDict):
    """One photograph and its label map, still encoded."""

    image: bytes
    label: bytes
    image_id: str


@runtime_checkable
class Source(Protocol):
    """What the loaders need of a source."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Return one example."""
        ...


class PreparedSource:
    """Read one split of a prepared folder; made by `open_source`."""

    def __init__(self, folder: Path, split: str) -> None:
        """Bind to a folder; the files are opened at the first access.

        Args:
            folder: Folder with TFDS's `dataset_info.json` and the record files.
            split: Name of the split.
        """
        self.folder = folder
        self.split = split
        self._lock = threading.Lock()
        self._records: Any = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._open())

    def __getitem__(self, index: int) -> Example:
        """Return example `index`, in the order of preparation."""
        record = self._open()[index]
        return {
            "image": record["image"],
            "label": record["label"],
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
                # Imported here: it takes a second, and nothing else needs it.
                import tensorflow_datasets as tfds

                builder = tfds.builder_from_directory(str(self.folder))
                # TFDS's logging decorator hides the signature from type checkers.
                self._records = builder.as_data_source(  # pyright: ignore[reportCallIssue]
                    self.split,
                    decoders={
                        "image": tfds.decode.SkipDecoding(),
                        "label": tfds.decode.SkipDecoding(),
                    },
                )
        return self._records


def open_source(
    spec: DatasetSpec,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
) -> PreparedSource:
    """Open one split of a prepared data set.

    Args:
        spec: The data set.
        split: Name of the split, `spec.train_split` for instance.
        data_dir: Folder of all prepared data sets; None for `default_data_dir()`.

    Returns:
        The examples in their natural order.

    Raises:
        FileNotFoundError: The data set has not been prepared there.
        ValueError: There is no such split, or the folder was prepared with other
            classes than `spec` names.
    """
    folder = prepared_dir(spec, data_dir)
    command = prepare_command(spec, data_dir)
    if not is_prepared(folder):
        raise FileNotFoundError(
            f"data set {spec.name!r} is not prepared in {folder}. Prepare it: {command}"
        )
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(str(folder)).info
    if split not in info.splits:
        raise ValueError(
            f"data set {spec.name!r} has no split {split!r}: {folder} holds "
            f"{', '.join(sorted(info.splits))}. Name one of them."
        )
    metadata = info.metadata or {}
    classes = tuple(metadata.get("classes", ()))
    ignore_label = metadata.get("ignore_label")
    again = f"Delete {folder} and prepare it again: {command}"
    if classes != spec.classes:
        raise ValueError(
            f"{folder} was prepared with other classes than {spec.name!r} has: "
            f"{_first_difference(classes, spec.classes)}. {again}"
        )
    if ignore_label != spec.ignore_label:
        raise ValueError(
            f"{folder} was prepared with ignore label {ignore_label}, and "
            f"{spec.name!r} has {spec.ignore_label}. {again}"
        )
    return PreparedSource(folder, split)


class FolderSource:
    """Read photographs and masks that lie in two folders, matched by name.

    `images/a/b.jpg` belongs to `masks/a/b.png`: the same path below the folder, the
    suffix aside. Masks hold class ids, 255 = ignored; palette PNGs count by index.
    """

    def __init__(
        self,
        images_dir: str | os.PathLike[str],
        masks_dir: str | os.PathLike[str],
    ) -> None:
        """List and match the files.

        Args:
            images_dir: Folder of photographs (.jpg, .jpeg, .png), nested or not.
            masks_dir: Folder of masks (.png), with the same paths below it.

        Raises:
            FileNotFoundError: A folder does not exist or holds no such file.
            ValueError: A photograph has no mask or a mask no photograph, or two files
                of a folder differ in their suffix only.
        """
        self.images_dir, self.masks_dir = Path(images_dir), Path(masks_dir)
        images = _files_by_stem(self.images_dir, _IMAGE_SUFFIXES, "photographs")
        masks = _files_by_stem(self.masks_dir, _MASK_SUFFIXES, "masks")
        problems = []
        if missing := sorted(images.keys() - masks.keys()):
            problems.append(f"without a mask: {_few(missing)}")
        if missing := sorted(masks.keys() - images.keys()):
            problems.append(f"without a photograph: {_few(missing)}")
        if problems:
            raise ValueError(
                f"photographs in {self.images_dir} and masks in {self.masks_dir} must "
                f"match by name: {'; '.join(problems)}. Add or remove files."
            )
        self._pairs = [(name, images[name], masks[name]) for name in sorted(images)]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        """Return pair `index`, in the order of the names."""
        image_id, image, mask = self._pairs[index]
        return {
            "image": image.read_bytes(),
            "label": mask.read_bytes(),
            "image_id": image_id,
        }

    def __repr__(self) -> str:
        """Name the two folders."""
        return f"FolderSource({str(self.images_dir)!r}, {str(self.masks_dir)!r})"


def _files_by_stem(
    folder: Path, suffixes: tuple[str, ...], kind: str
) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}. Name the folder of {kind}.")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise ValueError(
                f"{files[name]} and {path} differ in their suffix only. Remove one."
            )
        files[name] = path
    if not files:
        raise FileNotFoundError(
            f"no {kind} ({', '.join(suffixes)}) in {folder}. Name another folder."
        )
    return files


def _first_difference(prepared: tuple[str, ...], expected: tuple[str, ...]) -> str:
    if len(prepared) != len(expected):
        return f"{len(prepared)} classes against {len(expected)}"
    index = next(i for i, p in enumerate(prepared) if p != expected[i])
    return f"class {index} is {prepared[index]!r} there and {expected[index]!r} here"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
