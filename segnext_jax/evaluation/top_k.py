"""Classification metrics: how often the class is the best, or one of the best five."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

TOP = 5


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Counts of images by class.

    Attributes:
      num_images: Images of each class.
      num_first: Those whose class has the highest score.
      num_among: Those whose class has one of the five highest.
    """

    num_images: Int[np.ndarray, " classes"]
    num_first: Int[np.ndarray, " classes"]
    num_among: Int[np.ndarray, " classes"]

    def summary(self) -> dict[str, float]:
        """Return the shares of all images, under the names of the literature."""
        total = self.num_images.sum()
        return {
            "top1": float(self.num_first.sum() / total),
            f"top{TOP}": float(self.num_among.sum() / total),
        }

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return shares of all images and of each class; None where it has none."""
        shares = {
            name: int(first) / int(count) if count else None
            for name, first, count in zip(
                classes, self.num_first, self.num_images, strict=True
            )
        }
        return {
            **self.summary(),
            "images": int(self.num_images.sum()),
            "class_top1": shares,
        }

    def table(self, classes: Sequence[str]) -> str:
        """Return the shares in percent, and the classes that are worst, as text."""
        present: Any = np.flatnonzero(self.num_images)
        share = self.num_first[present] / self.num_images[present]
        worst = np.argsort(share, kind="stable")[:TOP]
        lines = [
            f"  {100 * share[i]:6.2f}  {classes[present[i]]} "
            f"({self.num_images[present[i]]} images)"
            for i in worst
        ]
        means = "  ".join(f"{k} {100 * v:.2f}" for k, v in self.summary().items())
        total = f"{means}  of {self.num_images.sum():,} images"
        return "\n".join(["top1 of the classes that are worst:", *lines, total])


def measure_classification(
    logits_fn: Callable[[UInt8[Array, "batch height width 3"]], Array],
    batches: Iterable[dict[str, np.ndarray]],
    *,
    num_classes: int,
    shard_fn: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]],
) -> ClassificationMetrics:
    """Return the metrics of a network over all batches.

    Args:
      logits_fn: Network applied to uint8 RGB images.
      batches: ``image``, ``label`` and ``mask``, False for copies, which do not count.
      num_classes: Number of classes.
      shard_fn: Puts a batch of NumPy arrays on the devices.
    """
    counts = np.zeros((3, num_classes), np.int64)
    for batch in batches:
        arrays = shard_fn(batch)
        logits = logits_fn(arrays["image"])
        # Replicated: every process adds up the counts of the whole batch.
        counts += jax.device_get(count_hits(logits, arrays["label"], arrays["mask"]))
    return ClassificationMetrics(*counts)


@jax.jit
def count_hits(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    mask: Bool[Array, " batch"],
) -> Int[Array, "3 classes"]:
    """Count images by class: all, those whose class is first, among the best five.

    The rank of a class is the number of classes with a higher score; an equal score
    counts as higher where the class's number is lower, as in a stable sort.

    Args:
      logits: Scores.
      labels: The right classes.
      mask: False for images that are not counted.
    """
    numbers = jnp.arange(logits.shape[1], dtype=labels.dtype)[None]
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    # Not "logits > own": a score that is no number must never be among the best.
    is_before = ~(logits <= own) | ((logits == own) & (numbers < labels[:, None]))
    rank = jnp.sum(is_before, axis=1)
    is_label = (numbers == labels[:, None]) & mask[:, None]
    is_first, is_among = (is_label & (rank < n)[:, None] for n in (1, TOP))
    return jnp.stack([jnp.sum(x, axis=0) for x in (is_label, is_first, is_among)])
