"""Which example stands at which place of the endless stream: functions of the seed."""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

# Second part of each seed, so that order and augmentation draw different numbers.
_ORDER_STREAM, _AUGMENTATION_STREAM = 0, 1


@runtime_checkable
class Order(Protocol):
    """An endless sequence of example numbers with random access."""

    def __getitem__(self, place: int) -> int:
        """Return the number of the example at a place, counted from 0."""
        ...


@dataclasses.dataclass(frozen=True)
class ShuffledEpochs:
    """Each example once an epoch; each epoch has an order of its own.

    NumPy draws the permutation. Grain's shuffle would walk through an index range of at
    least 2^16, which takes 0.3 ms per example for a data set of 64.

    Attributes:
      num_examples: Length of an epoch.
      seed: The seed of the orders.
    """

    num_examples: int
    seed: int

    def __getitem__(self, place: int) -> int:
        """Return the number of the example at a place, counted from 0."""
        epoch, offset = divmod(place, self.num_examples)
        return int(_permutation(self.num_examples, self.seed, epoch)[offset])


@dataclasses.dataclass(frozen=True)
class WeightedDraws:
    """Each place drawn by itself, with given probabilities.

    Attributes:
      cumulative: Cumulative probabilities of the examples; the last is about 1.
      seed: The seed of the draws.
    """

    cumulative: Float[np.ndarray, " examples"]
    seed: int

    def __getitem__(self, place: int) -> int:
        """Return the number of the example at a place, counted from 0."""
        draw = np.random.default_rng((self.seed, _ORDER_STREAM, place)).random()
        index = np.searchsorted(self.cumulative, draw, side="right")
        # The sum of the probabilities may end just below 1.
        return min(int(index), len(self.cumulative) - 1)


def augmentation_rng(seed: int, place: int) -> np.random.Generator:
    """Return the source of all numbers that are drawn for the crop at a place."""
    return np.random.default_rng((seed, _AUGMENTATION_STREAM, place))


# A batch may hold the end of one epoch and the start of the next; threads may be a few
# batches apart.
@functools.lru_cache(maxsize=4)
def _permutation(num_examples: int, seed: int, epoch: int) -> Int[np.ndarray, " _"]:
    rng = np.random.default_rng((seed, _ORDER_STREAM, epoch))
    return rng.permutation(num_examples)
