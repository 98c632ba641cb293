"""How examples flow: from prepared data or plain folders to batches of uint8 arrays."""

from segnext_jax.pipeline.evaluation_batches import EvaluationBatches
from segnext_jax.pipeline.fitting import Fitting
from segnext_jax.pipeline.loader import TrainLoader
from segnext_jax.pipeline.sources import (
    FolderSource,
    PreparedSource,
    open_source,
    open_split,
)
from segnext_jax.pipeline.transforms import RandomScaleCropFlip

__all__ = [
    "EvaluationBatches",
    "Fitting",
    "FolderSource",
    "PreparedSource",
    "RandomScaleCropFlip",
    "TrainLoader",
    "open_source",
    "open_split",
]
