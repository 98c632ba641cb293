"""The function that is exported: images to labels, all else inside."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from segnext_jax.export.options import SIZE_MULTIPLE
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops.photometric import normalize
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.predict.predictor import Predictor

# Logits lie at 1/8 of the input.
LOGITS_STRIDE = 8
INPUT_NAME = "images"
CERTAINTY_NAME = "certainty"

# Images to what `Signature.output` says.
Function = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What goes into an exported network and what comes out.

    Attributes:
      size: (height, width) of the images in pixels; None: known when it runs.
      batch: Number of images; None: known when it runs.
      input: ``"uint8"``, RGB as in a file, normalised inside; or ``"float"``,
        normalised already.
      output: ``"labels"`` (uint8) or ``"probabilities"`` of each pixel, or ``"logits"``
        at 1/8 of the size.
      has_certainty: Whether the ONNX graph also gives the probability of the best class
        at 1/8 of the size, for the page that shows it.
    """

    size: tuple[int, int] | None
    batch: int | None
    input: str = "uint8"
    output: str = "labels"
    has_certainty: bool = False

    def __post_init__(self) -> None:
        """Refuse what the network cannot take.

        Raises:
          ValueError: If a size is no multiple of 32, or the batch is empty.
        """
        if self.batch is not None and self.batch < 1:
            raise ValueError(
                f"the batch must hold at least one image: got {self.batch}."
            )
        if self.size is None:
            return
        if any(side < 1 or side % SIZE_MULTIPLE for side in self.size):
            fitting = [max(1, math.ceil(side / SIZE_MULTIPLE)) for side in self.size]
            height, width = (SIZE_MULTIPLE * number for number in fitting)
            raise ValueError(
                f"height and width must be multiples of {SIZE_MULTIPLE}, to which "
                f"evaluation stretches images: got {self.size[0]}x{self.size[1]}. Use "
                f"{height}x{width}."
            )

    @property
    def input_dtype(self) -> np.dtype:
        """Type of the images."""
        return np.dtype(np.uint8 if self.input == "uint8" else np.float32)

    @property
    def output_dtype(self) -> np.dtype:
        """Type of what comes out."""
        return np.dtype(np.uint8 if self.output == "labels" else np.float32)

    def input_spec(self) -> jax.ShapeDtypeStruct:
        """Return shape and type of the images, unknown dimensions as symbols."""
        height, width = self.size or ("32*h", "32*w")
        batch = self.batch or "b"
        shape = jax.export.symbolic_shape(f"{batch}, {height}, {width}, 3")
        return jax.ShapeDtypeStruct(shape, self.input_dtype)

    def output_dims(self, num_classes: int) -> tuple[int | str, ...]:
        """Return the dimensions of the output, unknown ones by name."""
        batch, height, width, _ = self.input_dims()
        if self.output == "logits":
            height, width = (
                f"{side}/{LOGITS_STRIDE}"
                if isinstance(side, str)
                else side // LOGITS_STRIDE
                for side in (height, width)
            )
        classes = () if self.output == "labels" else (num_classes,)
        return (batch, height, width, *classes)

    def input_dims(self) -> tuple[int | str, ...]:
        """Return the dimensions of the images, unknown ones by name."""
        return (self.batch or "batch", *(self.size or ("height", "width")), 3)

    def images_of(self, photographs: np.ndarray, mean: Any, std: Any) -> np.ndarray:
        """Return RGB bytes as the function takes them."""
        if self.input == "uint8":
            return photographs
        return ((photographs - np.array(mean)) / np.array(std)).astype(np.float32)

    def make_images(self, batch: int, size: tuple[int, int]) -> np.ndarray:
        """Draw images of any content, as the function takes them."""
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *size, 3))
        if self.input == "uint8":
            return pixels.astype(np.uint8)
        return ((pixels - 127.5) / 63.75).astype(np.float32)


def make_function(
    predictor: Predictor, signature: Signature, *, dtype: str
) -> Function:
    """Return the function to export: no random draws, weights as constants.

    Args:
      predictor: The network.
      signature: What goes in and comes out.
      dtype: Type of activations.

    Kernels of our own, which no file can hold, are left out.
    """
    model = _inference_model(predictor, dtype)
    if model.depthwise_implementation == "auto":
        model = model.clone(depthwise_implementation="shifted")
    variables = jax.device_get(predictor.variables)
    # On the host, or it would be drawn in the program after all.
    (draw,) = jax.device_get(list(model.draws().values()))

    def function(images: Array) -> Array:
        inputs = _normalized(images, predictor, signature)
        constants = jax.tree.map(jnp.asarray, (variables, draw))
        logits = model.apply(constants[0], inputs, constants[1])
        _, height, width, _ = images.shape
        return _finish(logits, (height, width), signature.output)

    return function


def make_reference(
    predictor: Predictor, signature: Signature, *, dtype: str
) -> Function:
    """Return the same function, jitted, as the package itself computes it.

    Weights are arguments, random draws are made when it runs, sizes are known when it
    is compiled, and the depthwise formulation is the configuration's.
    """
    model = _inference_model(predictor, dtype)

    def function(variables: Any, images: Array) -> Array:
        logits = model.apply(variables, _normalized(images, predictor, signature))
        _, height, width, _ = images.shape
        return _finish(logits, (height, width), signature.output)

    jitted = jax.jit(function)
    return lambda images: jitted(predictor.variables, images)


def _inference_model(predictor: Predictor, dtype: str) -> SegNeXt:
    return predictor.model.deterministic().clone(dtype=jnp.dtype(dtype))


def _normalized(images: Array, predictor: Predictor, signature: Signature) -> Array:
    if signature.input == "float":
        return images
    data = predictor.config.data
    return normalize(images, data.mean, data.std)


def _finish(logits: Any, size: tuple[Any, Any], output: str) -> Array:
    logits = logits.astype(jnp.float32)
    if output == "logits":
        return logits
    logits = resize_bilinear(logits, size)
    if output == "probabilities":
        return jax.nn.softmax(logits, axis=-1)
    # A byte holds every class: data sets have 255 at most, see DatasetSpec.
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)
