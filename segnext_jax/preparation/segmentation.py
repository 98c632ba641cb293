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
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from segnext_jax.datasets.pairs import (
    PreparationError,
    RawExample,
    file_size,
    read_file,
)
from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.images.decode import (
    check_labels,
    check_sizes,
    decode_image,
    decode_label,
    encode_label,
)
from segnext_jax.preparation.builder import RawBuilder


class SegmentationBuilder(RawBuilder, skip_registration=True):
    """Turn photographs and their masks into prepared examples.

    A subclass sets the class attributes and finds the files; it overrides `load` where
    a pair is more than two files and a table of ids.

    Attributes:
      spec: The data set; its name and version are the folder that is written.
      train_id_of: Train id of each raw id; where a subclass names none, that of the
        spec, empty for masks of train ids.
    """

    spec: ClassVar[DatasetSpec]
    train_id_of: ClassVar[dict[int, int]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take name and version from the spec, if the class has one."""
        if hasattr(cls, "spec"):
            cls.name = cls.spec.name
            cls.VERSION = tfds.core.Version(cls.spec.version)
            if "spec" in vars(cls) and "train_id_of" not in vars(cls):
                cls.train_id_of = cls.spec.train_id_of
        super().__init_subclass__(**{**kwargs, "skip_registration": True})

    def load(self, example: Any) -> tuple[str, bytes, UInt8[np.ndarray, "h w"]]:
        """Read one example.

        Args:
          example: An element of a sequence returned by `find_examples`.

        Returns:
          The image id, the file contents of the photograph, and the train ids.

        Raises:
          PreparationError: If a file is missing or cannot be decoded, or the mask holds
            an id that `train_id_of` does not know.
        """
        image = read_file(example.image)
        raw = decode_label(read_file(example.label), str(example.label))
        return example.image_id, image, self.to_train_ids(raw, str(example.label))

    def to_train_ids(
        self, raw: UInt8[np.ndarray, "h w"], name: str
    ) -> UInt8[np.ndarray, "h w"]:
        """Map raw ids by `train_id_of`.

        Args:
          raw: Ids as the mask's file holds them.
          name: The mask's file, for the error message.

        Returns:
          Train ids; the raw ids where the table is empty.

        Raises:
          PreparationError: If the mask holds an id that the table does not know.
        """
        if not self.train_id_of:
            return raw
        table = np.full(256, -1, np.int16)
        for raw_id, train_id in self.train_id_of.items():
            table[raw_id] = train_id
        labels = table[raw]
        if labels.min() < 0:
            unknown = np.unique(raw[labels < 0]).tolist()
            raise PreparationError(
                f"{name}: raw ids of {self.spec.name} are "
                f"{sorted(self.train_id_of)}: found {unknown}. Correct the mask (or "
                "is this another data set?)."
            )
        return labels.astype(np.uint8)

    def encode(self, example: Any) -> dict[str, Any]:
        """Read, check and encode one pair."""
        image_id, image, labels = self.load(example)
        names = (image_id, image_id)
        if isinstance(example, RawExample):
            names = (str(example.image), str(example.label))
        self._check_pair(image, labels, *names)
        return {
            "image": io.BytesIO(image),
            "label": io.BytesIO(encode_label(labels)),
            "image_id": image_id,
            "height": labels.shape[0],
            "width": labels.shape[1],
        }

    def size_bytes(self, example: Any) -> int:
        """Return the size of the two files; masks stay about as large as they were."""
        if not isinstance(example, RawExample):
            return 0
        return file_size(example.image) + file_size(example.label)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.spec.name} with {self.spec.num_classes} classes.",
            # TFDS would name a page of its own catalogue, which does not exist.
            homepage=self.spec.homepage or "none: a set of your own",
            citation=self.spec.citation,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.LabeledImage(
                        labels=list(self.spec.classes), encoding_format="png"
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

    def _check_pair(
        self,
        image: bytes,
        labels: UInt8[np.ndarray, "h w"],
        image_name: str,
        label_name: str,
    ) -> None:
        check_sizes(decode_image(image, image_name), labels, image, image_name)
        spec = self.spec
        check_labels(labels, spec.num_classes, spec.ignore_label, label_name)
