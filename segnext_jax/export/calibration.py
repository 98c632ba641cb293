"""Photographs for an eight-bit network: what its values range over is seen on them."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.export.program import SIZE_MULTIPLE
from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline import Fitting
from segnext_jax.predict.photographs import named_photographs, validation_photographs
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
    if words:
        encoded = named_photographs(words, NUM_PHOTOGRAPHS)
    else:
        encoded = _of_validation(config, spec)
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


def _of_validation(config: ConfigDict, spec: DatasetSpec) -> dict[str, bytes]:
    try:
        return validation_photographs(config, spec, NUM_PHOTOGRAPHS)
    except (OSError, ValueError) as error:
        raise ValueError(
            "eight bits need photographs to be fitted to, and the network's validation "
            f"split cannot be read ({str(error).rstrip('.')}). Name photographs by "
            "--calibration=FOLDER."
        ) from error
