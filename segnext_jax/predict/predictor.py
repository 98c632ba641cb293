"""A trained network in one line: ``model = segnext_jax.load(path)``."""

import functools
import html
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, overload

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.datasets.pairs import read_file
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.batch import Batch
from segnext_jax.evaluation.inference import Inference
from segnext_jax.evaluation.row_blocks import RowBlock, row_blocks
from segnext_jax.images.decode import decode_image
from segnext_jax.images.decoders import from_pillow
from segnext_jax.models.initialization import check_complete
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline import Fitting
from segnext_jax.predict.prediction import Prediction

# Inputs of the network above this are seen window by window, or not at all: 4096 x 4096
# are 200 MB in float32, and a hundred times that within the network.
MAX_INPUT_PIXELS = 2**24
# Labels or probabilities of one image above this are made in blocks of rows.
_MAX_MAP_BYTES = 2**28


class Predictor:
    """A network with its weights, its configuration and its classes.

    Attributes:
      config: See `segnext_jax.config`.
      spec: Names and colours of the classes.
      model: The linen module.
      variables: ``{"params": ..., "batch_stats": ...}``.
      step: Number of steps that they were trained; None if that is not known.
      score: mIoU of the step on the validation split, 0..1; None if not evaluated.
    """

    def __init__(
        self,
        variables: Any,
        config: ConfigDict,
        step: int | None = None,
        score: float | None = None,
    ):
        """Bind weights and configuration.

        Raises:
          ValueError: If the weights are not those of the configuration's network.
        """
        self.config, self.step, self.score = config, step, score
        self.spec = resolve_spec(config.data)
        self.model = SegNeXt.from_config(config.model, self.spec.num_classes)
        check_complete(self.model, variables)
        self.variables = jax.device_put(variables)

    def __repr__(self) -> str:
        """Say which network it is."""
        config = self.config
        network = f"SegNeXt {config.model.variant}"
        classes = f"{len(self.classes)} classes of {config.data.name}"
        return f"Predictor({network}, {classes}, {config.evaluation.mode})"

    def _repr_html_(self) -> str:
        """Show the classes with their colours, in a notebook."""
        rows = "".join(
            f"<li><span style='background:rgb{tuple(map(int, colour))}'>"
            f"&emsp;</span> {html.escape(name)}</li>"
            for name, colour in zip(self.classes, self.spec.colours, strict=True)
        )
        columns = "columns:12em;list-style:none;padding:0"
        return f"<p>{html.escape(repr(self))}</p><ul style='{columns}'>{rows}</ul>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in train-id order."""
        return self.spec.classes

    def logits(
        self,
        images: Float[Array, "batch height width 3"]
        | Float[np.ndarray, "batch height width 3"],
        draw: Any = None,
    ) -> Float[Array, "batch small_height small_width classes"]:
        """Return scores at 1/8 of the images' size, rounded up.

        Args:
          images: Normalised RGB: ``(image - config.data.mean) / config.data.std``.
          draw: See `SegNeXt.draws`. None: as the configuration says.
        """
        return self._logits(self.variables, images, draw)

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

    @overload
    def predict(self, image: list | tuple, batch_size: int = 8) -> list[Prediction]: ...

    @overload
    def predict(
        self, image: str | os.PathLike[str], batch_size: int = 8
    ) -> Prediction: ...

    @overload
    def predict(self, image: Any, batch_size: int = 8) -> Any: ...

    def predict(self, image: Any, batch_size: int = 8) -> Any:
        """Return labels and probabilities at the image's own size.

        The image goes the way that it goes in the evaluation of the configuration:
        whole or in windows, at one or several scales.

        Args:
          image: Path of an image file, RGB array uint8 [height, width, 3], or a Pillow
            image; or a list of these, or an array [batch, height, width, 3].
          batch_size: How many of a list go through the network at once, at most.

        Returns:
          A `Prediction`; of several images a list.

        Raises:
          ValueError: If ``image`` is none of these, a file cannot be decoded, or the
            image is too large to be seen whole.
        """
        if isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4:
            return self._predict_all([read_image(one) for one in image], batch_size)
        return self._predict_all([read_image(image)], batch_size)[0]

    def input_sizes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Return what the network sees of an image of (height, width), for each ratio.

        Raises:
          ValueError: If the network would see more than `MAX_INPUT_PIXELS` at once.
        """
        sizes = tuple(fitted.outer for fitted in self._fitting.sizes(size))
        height, width = max(sizes, key=math.prod)
        if self._inference.window is None and height * width > MAX_INPUT_PIXELS:
            raise ValueError(
                f"an image that the network sees whole must have at most "
                f"{MAX_INPUT_PIXELS:,} pixels: got {height} x {width}. See it in "
                "windows (--config.evaluation.mode=slide), or reduced "
                "(--config.evaluation.scale=LONG,SHORT)."
            )
        return sizes

    def is_large(self, size: tuple[int, int], has_probabilities: bool = False) -> bool:
        """Tell images that `predict_rows` is for, and `predict_batch` is not."""
        pixels = max(height * width for height, width in self.input_sizes(size))
        bytes_per_pixel = 4 * self.spec.num_classes if has_probabilities else 1
        num_bytes = size[0] * size[1] * bytes_per_pixel
        return pixels > MAX_INPUT_PIXELS or num_bytes > _MAX_MAP_BYTES

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        has_probabilities: bool = False,
    ) -> list[RowBlock]:
        """Return what the network sees in images of equal `input_sizes`.

        Args:
          images: RGB, 0..255.
          has_probabilities: Whether probabilities are wanted, too.

        Raises:
          ValueError: If the network's scores are not numbers.
        """
        fitted = [self._fitting.images(image) for image in images]
        sizes = [self._fitting.sizes(image.shape[:2]) for image in images]
        batch = Batch(
            images=tuple(np.stack(ratio) for ratio in zip(*fitted, strict=True)),
            fitted_sizes=tuple(zip(*sizes, strict=True)),
            image_sizes=tuple(image.shape[:2] for image in images),
            first_row=0,
        )
        if has_probabilities:
            maps = self._inference.probability_maps(batch)
            blocks = [RowBlock(*both) for both in maps]
        else:
            maps = self._inference.label_maps(batch)
            blocks = [RowBlock(labels, None) for labels in maps]
        for block in blocks:
            self._check(block)
        return blocks

    def predict_rows(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        has_probabilities: bool = False,
    ) -> Iterator[RowBlock]:
        """Yield what the network sees, from top to bottom; see `row_blocks`.

        Args:
          image: RGB, 0..255.
          has_probabilities: Whether probabilities are wanted, too.

        Raises:
          ValueError: If the network's scores are not numbers.
        """
        size = image.shape[:2]
        fitted, sizes = self._fitting.images(image), self._fitting.sizes(size)
        for block in row_blocks(
            self._inference, fitted, sizes, size, has_probabilities
        ):
            self._check(block)
            yield block

    def _predict_all(
        self, images: list[np.ndarray], batch_size: int
    ) -> list[Prediction]:
        labels: dict[int, np.ndarray] = {}
        groups: dict[Any, list[int]] = {}
        for number, image in enumerate(images):
            if self.is_large(image.shape[:2]):
                rows = [block.labels for block in self.predict_rows(image)]
                labels[number] = np.concatenate(rows)
            else:
                key = self.input_sizes(image.shape[:2])
                groups.setdefault(key, []).append(number)
        for group in groups.values():
            for part in split_batch(group, batch_size):
                blocks = self.predict_batch([images[number] for number in part])
                for number, block in zip(part, blocks, strict=True):
                    labels[number] = block.labels
        return [
            Prediction(
                image,
                labels[number],
                self.spec,
                functools.partial(self._image_probabilities, image),
            )
            for number, image in enumerate(images)
        ]

    def _image_probabilities(self, image: np.ndarray) -> np.ndarray:
        if self.is_large(image.shape[:2], has_probabilities=True):
            blocks = list(self.predict_rows(image, has_probabilities=True))
        else:
            blocks = self.predict_batch([image], has_probabilities=True)
        parts = [b.probabilities for b in blocks if b.probabilities is not None]
        return np.concatenate(parts)

    def _check(self, block: RowBlock) -> None:
        if block.labels.max() >= self.spec.num_classes:
            raise FloatingPointError(
                "the network's scores must be numbers: some are nan. Its weights or "
                "the type that it computes in (config.model.dtype) are at fault."
            )

    @functools.cached_property
    def _fitting(self) -> Fitting:
        return Fitting.from_config(self.config.evaluation)

    @functools.cached_property
    def _inference(self) -> Inference:
        return Inference.from_config(
            self.config, lambda images: self._logits(self.variables, images, None)
        )

    @functools.cached_property
    def _logits(self) -> Any:
        key = jax.random.key(self.config.seed)

        def logits(variables: Any, images: Array, draw: Any) -> Any:
            rngs = self.model.inference_rngs(key)
            return self.model.apply(variables, images, draw, rngs=rngs)

        return jax.jit(logits)

    @functools.cached_property
    def _features(self) -> Any:
        def features(variables: Any, images: Array) -> Any:
            return self.model.apply(
                variables, images, method=lambda model, x: model.backbone(x)
            )

        return jax.jit(features)


def split_batch(items: Sequence, batch_size: int) -> Iterator[Sequence]:
    """Cut a list into batches, the rest into powers of two.

    XLA compiles a program for each batch size. Powers of two keep the number of
    programs small, without copies that fill up a batch.

    >>> [len(batch) for batch in split_batch(range(22), batch_size=8)]
    [8, 8, 4, 2]
    """
    start = 0
    while start < len(items):
        left = len(items) - start
        size = batch_size if left >= batch_size else 1 << (left.bit_length() - 1)
        yield items[start : start + size]
        start += size


def load(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    which: str | int = "latest",
) -> Predictor:
    """Load a network: a run's workdir, a converted folder, or a PyTorch checkpoint.

    Args:
      path: The folder or file (see `segnext_jax.weights`).
      dataset: Whose classes a checkpoint file knows; needed where their number does not
        tell it.
      overrides: Fields of its configuration to set: ``"evaluation.mode=slide"``, ...
      which: The checkpoint of a run: ``"latest"``, ``"best"`` or the number of a step.

    Raises:
      ValueError: If there is no whole network at ``path``, or a field has an impossible
        value or is not used to predict.
    """
    stored = weights.load_network(path, which, dataset)
    assert stored.config is not None  # Of a network there always is one.
    config_lib.with_overrides(stored.config, overrides, str(path))
    given = [text.partition("=")[0] for text in overrides]
    config_lib.refuse_unused(given, "prediction", str(path))
    return Predictor(stored.variables, stored.config, stored.step, stored.score)


def read_image(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Return an RGB array of a path, a Pillow image, or the array itself.

    Raises:
      OSError: If the file does not exist or cannot be opened.
      ValueError: If ``image`` is none of these, or the file is no image.
    """
    if isinstance(image, str | os.PathLike):
        path = pathlib.Path(image)
        if not path.exists():
            raise FileNotFoundError(
                f"an image must be a file: {path} does not exist. The current folder "
                f"is {pathlib.Path.cwd()}."
            )
        return decode_image(read_file(path), str(path))
    if hasattr(image, "convert"):
        return from_pillow(image)
    array = np.asarray(image)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        if array.size:
            return array
    raise ValueError(
        "an image must be a file's path, a Pillow image, or a uint8 array [height, "
        f"width, 3] in RGB, 0..255: got {array.dtype} {list(array.shape)}."
        f"{_array_advice(array)}"
    )


def _array_advice(array: np.ndarray) -> str:
    """Return what to do with an array that is almost an image."""
    advice = []
    if array.ndim == 2:
        advice.append("Repeat a grey image: np.stack([image] * 3, axis=-1).")
    elif array.ndim == 3 and array.shape[2] == 1:
        advice.append("Repeat a grey image: image.repeat(3, axis=-1).")
    elif array.ndim == 3 and array.shape[2] == 4:
        advice.append("Drop the alpha channel: image[..., :3].")
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        advice.append("Put the channels last: image.transpose(1, 2, 0).")
    if np.issubdtype(array.dtype, np.floating):
        advice.append(
            "Scale floats in 0..1: (image * 255).round().astype(np.uint8); those in "
            "0..255 are rounded alone."
        )
    elif array.dtype != np.uint8:
        advice.append("Bring its values to 0..255: image.astype(np.uint8).")
    return "".join(f" {sentence}" for sentence in advice)
