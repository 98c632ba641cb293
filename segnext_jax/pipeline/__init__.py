"""How examples flow: from prepared data or plain folders to batches of uint8 arrays."""

from segnext_jax.pipeline.evaluation_batches import eval_batches
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.pipeline.sources import (
    FolderSource,
    PreparedSource,
    open_source,
    open_split,
)
from segnext_jax.pipeline.transforms import RandomScaleCropFlip, resize_for_network

__all__ = [
    "FolderSource",
    "PreparedSource",
    "RandomScaleCropFlip",
    "TrainLoader",
    "eval_batches",
    "open_source",
    "open_split",
    "resize_for_network",
]
