"""What is evaluated: a batch of fitted images, with or without labels.

NumPy alone: `segnext_jax.pipeline` makes the batches, and never touches a device.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt8

# (height, width).
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class FittedSize:
    """Sizes of an image on its way into the network.

    Attributes:
      inner: (height, width) of the resized image.
      outer: (height, width) of the network's input, which holds the image in its upper
        left; equal to `inner` unless the rule is to pad.
    """

    inner: Size
    outer: Size


@dataclasses.dataclass(frozen=True)
class Batch:
    """A process's rows of a batch of images, and the sizes of all rows.

    Attributes:
      images: RGB at the size of the network's input, one array for each ratio.
      fitted_sizes: For each ratio those of all rows of the batch over all processes.
        The outer sizes of a ratio are equal.
      image_sizes: (height, width) of all rows' original images.
      first_row: Position of this process's first row among all rows.
    """

    images: tuple[UInt8[np.ndarray, "batch _ _ 3"], ...]
    fitted_sizes: tuple[tuple[FittedSize, ...], ...]
    image_sizes: tuple[Size, ...]
    first_row: int

    @property
    def rows(self) -> range:
        """Positions of this process's rows among all rows."""
        return range(self.first_row, self.first_row + len(self.images[0]))


@dataclasses.dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch whose images have labels.

    Attributes:
      labels: Label maps of the original sizes, never resized.
      mask: False for copies that only fill up the batch.
      image_ids: Names.
    """

    labels: tuple[UInt8[np.ndarray, "_ _"], ...]
    mask: Bool[np.ndarray, " batch"]
    image_ids: tuple[str, ...]
