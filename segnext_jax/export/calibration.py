"""Photographs for an eight-bit network: what its values range over is seen on them."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.export.program import SIZE_MULTIPLE
from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline import Fitting, open_split
from segnext_jax.predict.inputs import find_inputs
from segnext_jax.predict.predictor import Predictor

NUM_PHOTOGRAPHS = 32

Photographs = list[UInt8[np.ndarray, "1 _ _ 3"]]


def read_photographs(
    predictor: Predictor, words: Sequence[str], size: tuple[int, int] | None
) -> Photographs:
    """Return photographs as evaluation would give them to the network.

    Args:
      predictor: The network.
      size: (height, width) to which they are stretched; None: evaluation's sizes.
      words: Files, folders and patterns; none: photographs of the validation split of
        the network's data set, evenly spread.

    Raises:
      ValueError: If there are no photographs.
    """
    config, spec = predictor.config, predictor.spec
    encoded = _named(words) if words else _of_validation(config, spec)
    evaluation = config.evaluation
    fitting = Fitting(
        scale=None if tuple(evaluation.scale) == (0, 0) else tuple(evaluation.scale),
        multiple=SIZE_MULTIPLE,
    )
    photographs = []
    for name, data in encoded.items():
        (image,) = fitting.images(decode_image(data, name))
        if size is not None:
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        photographs.append(image[None])
    return photographs


def _named(words: Sequence[str]) -> dict[str, bytes]:
    paths = [item.path for item in find_inputs(words) if not item.is_video]
    return {str(path): path.read_bytes() for path in _spread(paths)}


def _of_validation(config: ConfigDict, spec: DatasetSpec) -> dict[str, bytes]:
    try:
        source = open_split(config.data, spec, spec.val_split)
    except (OSError, ValueError) as error:
        raise ValueError(
            "eight bits need photographs to be fitted to, and the network's validation "
            f"split cannot be read ({str(error).rstrip('.')}). Name photographs by "
            "--calibration=FOLDER."
        ) from error
    examples = (source[int(index)] for index in _spread(range(len(source))))
    return {example["image_id"]: example["image"] for example in examples}


def _spread(items: Sequence[Any]) -> list[Any]:
    """Return `NUM_PHOTOGRAPHS` of them at equal distances, or all."""
    count = min(len(items), NUM_PHOTOGRAPHS)
    return [items[i * len(items) // count] for i in range(count)]
