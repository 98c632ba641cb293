"""Drawing images with rare classes more often than others.

Source: rare class sampling of DAFormer (Hoyer et al., CVPR 2022, section 4.3): a class
is drawn, rare ones more often, then an image in which it occurs.
"""

import concurrent.futures
import os

import numpy as np
from jaxtyping import Float, Int

from segnext_jax.images.decode import decode_label
from segnext_jax.pipeline.sources import Source


def count_classes(source: Source, num_classes: int) -> Int[np.ndarray, "examples _"]:
    """Count the pixels of each class in each example.

    Args:
      source: The examples; every label map is read and decoded once.
      num_classes: Ids 0..num_classes-1 are classes; others are not counted.

    Returns:
      Numbers of pixels, [examples, num_classes].

    Raises:
      ValueError: If a label map cannot be decoded.
    """

    def count(index: int) -> np.ndarray:
        example = source[index]
        label = example["label"]
        if not isinstance(label, np.ndarray):
            label = decode_label(label, example["image_id"])
        return np.bincount(label.ravel(), minlength=256)[:num_classes]

    # Decoding lets go of the interpreter lock.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(count, range(len(source)))))


def example_probabilities(
    counts: Int[np.ndarray, "examples classes"], temperature: float
) -> Float[np.ndarray, " examples"]:
    """Return how often each example is to be drawn.

        P(c) = exp((1 - f_c) / T) / sum_k exp((1 - f_k) / T),
        P(i) = sum_c P(c) [c occurs in i] / (number of examples in which c occurs),

    where f_c is the share of class c among all labelled pixels; classes that never
    occur take no part.

    Args:
      counts: Pixels of each class in each example.
      temperature: T; small values (0.01) prefer rare classes strongly, large ones
        make all classes equally likely.

    Returns:
      Probabilities; their sum is 1.

    Raises:
      ValueError: If no example has a labelled pixel.
    """
    totals = counts.sum(axis=0)
    if not totals.any():
        raise ValueError(
            "sampling by class needs labelled pixels: no example has any. Set "
            "config.data.rare_class_temperature to None."
        )
    occurs = totals > 0
    frequencies = totals[occurs] / totals.sum()
    # The largest exponent is taken off first: exp(100) times many would overflow.
    exponents = (frequencies.min() - frequencies) / temperature
    class_probabilities = np.exp(exponents) / np.exp(exponents).sum()
    is_present = counts[:, occurs] > 0
    return is_present @ (class_probabilities / is_present.sum(axis=0))
