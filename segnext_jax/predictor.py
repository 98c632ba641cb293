"""A trained network in one line: ``model = segnext_jax.load(path)``."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from segnext_jax import convert, visualize
from segnext_jax.datasets import DatasetSpec
from segnext_jax.datasets.decode import decode_image
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.inference import Inference
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline import FittedSize, Fitting


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What a network sees in one image.

    Attributes:
      image: The image itself, RGB, 0..255.
      labels: Best class of each pixel, as train ids.
      probabilities: Softmax scores of each pixel, float32.
      spec: Names and colours of the classes.
    """

    image: UInt8[np.ndarray, "height width 3"]
    labels: UInt8[np.ndarray, "height width"]
    probabilities: Float[np.ndarray, "height width classes"]
    spec: DatasetSpec

    def overlay(self, opacity: float = 0.5) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image tinted by the classes' colours."""
        return visualize.overlay(self.image, self.labels, self.spec.colours, opacity)

    def class_areas(self) -> dict[str, float]:
        """Return the share of pixels of each class that occurs, largest first."""
        ids, counts = np.unique(self.labels, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        names = self.spec.classes
        return {names[ids[i]]: float(counts[i] / self.labels.size) for i in order}


class Predictor:
    """A network with its weights, its configuration and its classes.

    Attributes:
      config: See `segnext_jax.config`.
      spec: Names and colours of the classes.
      model: The linen module.
      variables: ``{"params": ..., "batch_stats": ...}``.
    """

    def __init__(self, variables: Any, config: ConfigDict):
        """Bind weights and configuration.

        Raises:
          ValueError: If the weights are not those of the configuration's network.
        """
        self.config = config
        self.spec = resolve_spec(config.data)
        self.model = SegNeXt.from_config(config.model, self.spec.num_classes)
        _check_complete(self.model, variables)
        self.variables = jax.device_put(variables)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in train-id order."""
        return self.spec.classes

    def logits(
        self,
        images: Float[Array, "batch height width 3"]
        | Float[np.ndarray, "batch height width 3"],
        bases: Float[Array, "batch channels rank"]
        | Float[np.ndarray, "batch channels rank"]
        | None = None,
    ) -> Float[Array, "batch small_height small_width classes"]:
        """Return scores at 1/8 of the images' size, rounded up.

        Args:
          images: Normalised RGB: ``(image - config.data.mean) / config.data.std``.
          bases: Starting bases of the NMF. None: as the configuration says.
        """
        return self._logits(self.variables, images, bases)

    def features(
        self,
        images: Float[Array, "batch height width 3"]
        | Float[np.ndarray, "batch height width 3"],
    ) -> list[Float[Array, "batch _ _ _"]]:
        """Return the encoder's four stages, at 1/4, 1/8, 1/16 and 1/32 of the size.

        Args:
          images: Normalised RGB, as for `logits`.
        """
        return self._features(self.variables, images)

    def predict(self, image: Any) -> Prediction:
        """Return labels and probabilities at the image's own size.

        The image goes the way that it goes in the evaluation of the configuration:
        whole or in windows, at one or several scales.

        Args:
          image: Path of an image file, RGB array uint8 [height, width, 3], or a Pillow
            image.

        Raises:
          ValueError: If it is none of these, or the file cannot be read.
        """
        image = _read(image)
        fitting = Fitting.from_config(self.config.evaluation)
        batch = _OneImage(
            images=tuple(fitted[None] for fitted in fitting.images(image)),
            fitted_sizes=tuple((sizes,) for sizes in fitting.sizes(image.shape[:2])),
            image_sizes=(image.shape[:2],),
        )
        inference = Inference.from_config(
            self.config, lambda images: self._logits(self.variables, images, None)
        )
        ((labels, probabilities),) = inference.probability_maps(batch)
        return Prediction(image, labels, probabilities, self.spec)

    @functools.cached_property
    def _logits(self) -> Any:
        key = jax.random.key(self.config.seed)

        def logits(variables: Any, images: Array, bases: Array | None) -> Array:
            return self.model.apply(variables, images, bases, rngs={"nmf": key})

        return jax.jit(logits)

    @functools.cached_property
    def _features(self) -> Any:
        def features(variables: Any, images: Array) -> list[Array]:
            return self.model.apply(
                variables, images, method=lambda model, x: model.backbone(x)
            )

        return jax.jit(features)


@dataclasses.dataclass(frozen=True)
class _OneImage:
    """A batch for `segnext_jax.evaluation.inference`."""

    images: tuple[UInt8[np.ndarray, "1 _ _ 3"], ...]
    fitted_sizes: tuple[tuple[FittedSize], ...]
    image_sizes: tuple[tuple[int, int]]
    rows: range = range(1)


def load(path: str | os.PathLike[str], dataset: str | None = None) -> Predictor:
    """Load a network: a run's workdir, a converted folder, or a PyTorch checkpoint.

    Args:
      path: The folder or file (see `segnext_jax.convert`).
      dataset: Whose classes a checkpoint file knows; needed where their number does not
        tell it.

    Raises:
      ValueError: If there is no whole network at ``path``.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"the network to load must exist: {path} does not.")
    return Predictor(*convert.read_model(path, dataset))


def _check_complete(model: SegNeXt, variables: Any) -> None:
    needed = traverse_util.flatten_dict(abstract_variables(model), sep="/")
    given = traverse_util.flatten_dict(dict(variables), sep="/")
    missing = sorted(needed.keys() - given.keys())
    if missing:
        raise ValueError(
            f"a whole network is needed to predict: {len(missing)} arrays are missing, "
            f"first {missing[0]}. Train it first, with config.init_from set to this."
        )
    for name, leaf in needed.items():
        if leaf.shape != given[name].shape:
            raise ValueError(
                "the weights must be those of the configuration's network: "
                f"{name} is {list(given[name].shape)}, needed {list(leaf.shape)}. "
                "Correct config.model or config.data.name."
            )


def _read(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    if isinstance(image, str | os.PathLike):
        path = pathlib.Path(image)
        return decode_image(path.read_bytes(), str(path))
    array = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            "an image must be a file's path, a Pillow image, or a uint8 array [height, "
            f"width, 3] in RGB: got {array.dtype} {array.shape}."
        )
    return array
