"""Which images go through the network together."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from segnext_jax.evaluation.batch import FittedSize


class Fitted(NamedTuple):
    """An image as the network takes it.

    Attributes:
      images: One array for each ratio.
      sizes: Sizes of these.
    """

    images: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    sizes: tuple[FittedSize, ...]


def split_batch(
    items: Sequence, batch_size: int, num_devices: int = 1
) -> Iterator[Sequence]:
    """Cut a list into batches of so many for each device, the rest by powers of two.

    XLA compiles a program for each batch size. Powers of two keep the number of
    programs small, without copies that fill up a batch but for the last on several
    devices.

    >>> [len(batch) for batch in split_batch(range(22), batch_size=8)]
    [8, 8, 4, 2]
    >>> [len(batch) for batch in split_batch(range(22), batch_size=2, num_devices=4)]
    [8, 8, 4, 2]
    """
    start = 0
    while start < len(items):
        each = max((len(items) - start) // num_devices, 1)
        each = batch_size if each >= batch_size else 1 << (each.bit_length() - 1)
        yield items[start : start + each * num_devices]
        start += each * num_devices
