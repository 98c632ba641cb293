"""A trained network in one line: ``model = segnext_jax.load(path)``."""

import dataclasses
import functools
import html
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.cli import storage
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.batch import Batch
from segnext_jax.evaluation.inference import Inference
from segnext_jax.evaluation.row_blocks import RowBlock, row_blocks
from segnext_jax.models.initialization import check_complete
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import sharding
from segnext_jax.pipeline import Fitting
from segnext_jax.predict.batches import Fitted, split_batch
from segnext_jax.predict.photograph import read_image
from segnext_jax.predict.prediction import Prediction

# Inputs of the network above this are seen window by window, or not at all: 4096 x 4096
# are 200 MB in float32, and a hundred times that within the network.
MAX_INPUT_PIXELS = 2**24
# Labels or probabilities of one image above this are made in blocks of rows.
_MAX_MAP_BYTES = 2**28


class Predictor:
    """A network with its weights, its configuration and its classes.

    It pickles by its address: the process that unpickles it loads the same weights from
    the same path. The path must lead to them there, too.

    Attributes:
      config: See `segnext_jax.config`.
      spec: Names and colours of the classes.
      model: The linen module.
      variables: ``{"params": ..., "batch_stats": ...}``, on one device.
      step: Number of steps that they were trained; None if that is not known.
      score: mIoU of the step on the validation split, 0..1; None if not evaluated.
      num_devices: How many devices share a batch of `predict_batch`.
      address: The arguments of `load` that gave it; None: it was made otherwise.
    """

    address: tuple[Any, ...] | None = None

    def __init__(
        self,
        variables: Any,
        config: ConfigDict,
        devices: Sequence[Any] | None = None,
        *,
        step: int | None = None,
        score: float | None = None,
    ):
        """Bind weights and configuration.

        Args:
          variables: The weights.
          config: The configuration.
          devices: Those of this process that share a batch. None: the first alone.
          step: See `Predictor`, as for the next.
          score: See there.

        Raises:
          ValueError: If the weights are not those of the configuration's network.
        """
        self.config, self.step, self.score = config, step, score
        self.spec = resolve_spec(config.data)
        self.model = SegNeXt.from_config(config.model, self.spec.num_classes)
        check_complete(self.model, variables)
        devices = list(devices or jax.local_devices()[:1])
        self.num_devices = len(devices)
        self._mesh = sharding.make_mesh(devices=devices)
        self._copies = sharding.replicate(variables, self._mesh)
        self.variables = jax.tree.map(
            lambda copies: copies.addressable_shards[0].data, self._copies
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address.

        Raises:
          ValueError: If the predictor has none.
        """
        if self.address is None:
            raise ValueError(
                "a predictor is pickled by the path of its weights, and this one was "
                "made from arrays. Take one that segnext_jax.load returns."
            )
        return load, self.address

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
        return self._apply(self.variables, images, draw)

    def features(
        self,
        images: Float[Array, "batch height width 3"]
        | Float[np.ndarray, "batch height width 3"],
    ) -> list[Float[Array, "batch _ _ _"]]:
        """Return the encoder's four stages, at 1/4, 1/8, 1/16 and 1/32 of the size.

        Args:
          images: Normalised RGB, as for `logits`.
        """
        return _features(self.variables, images, model=self.model)

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

    def fit(self, image: UInt8[np.ndarray, "height width 3"]) -> Fitted:
        """Return an image as the network takes it: the host's part of the work."""
        return Fitted(self._fitting.images(image), self._fitting.sizes(image.shape[:2]))

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        has_probabilities: bool = False,
        fitted: Sequence[Fitted] | None = None,
    ) -> list[RowBlock]:
        """Return what the network sees in images of equal `input_sizes`.

        The devices share the images evenly; copies of the last one fill up the batch.

        Args:
          images: RGB, 0..255.
          has_probabilities: Whether probabilities are wanted, too.
          fitted: `fit` of each image, where the caller has it.

        Raises:
          ValueError: If the network's scores are not numbers.
        """
        fitted = [self.fit(image) for image in images] if fitted is None else fitted
        num_copies = -len(images) % self.num_devices
        filled = [*fitted, *[fitted[-1]] * num_copies]
        batch = Batch(
            images=tuple(
                np.stack(ratio)
                for ratio in zip(*(one.images for one in filled), strict=True)
            ),
            fitted_sizes=tuple(zip(*(one.sizes for one in filled), strict=True)),
            image_sizes=tuple(
                image.shape[:2] for image in [*images, *[images[-1]] * num_copies]
            ),
            first_row=0,
        )
        if has_probabilities:
            maps = self._spread_inference.probability_maps(batch)
            blocks = [RowBlock(*both) for both in maps]
        else:
            maps = self._spread_inference.label_maps(batch)
            blocks = [RowBlock(labels, None) for labels in maps]
        blocks = blocks[: len(images)]
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
        fitted, size = self.fit(image), image.shape[:2]
        for block in row_blocks(self._inference, *fitted, size, has_probabilities):
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
            for part in split_batch(group, batch_size, self.num_devices):
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

    def _apply(self, variables: Any, images: Any, draw: Any = None) -> Array:
        seed = np.uint32(self.config.seed)
        return _logits(variables, images, draw, seed, model=self.model)

    @functools.cached_property
    def _fitting(self) -> Fitting:
        return Fitting.from_config(self.config.evaluation)

    @functools.cached_property
    def _inference(self) -> Inference:
        return Inference.from_config(
            self.config, lambda images: self._apply(self.variables, images)
        )

    @functools.cached_property
    def _spread_inference(self) -> Inference:
        if self.num_devices == 1:
            return self._inference
        return dataclasses.replace(
            self._inference,
            logits_fn=lambda images: self._apply(self._copies, images),
            shard_fn=lambda arrays: sharding.shard_batch(arrays, self._mesh),
        )


# Of the module: a second predictor of the same network compiles nothing.
@functools.partial(jax.jit, static_argnames="model")
def _logits(variables: Any, images: Array, draw: Any, seed: Any, model: SegNeXt) -> Any:
    rngs = model.inference_rngs(jax.random.key(seed))
    return model.apply(variables, images, draw, rngs=rngs)


@functools.partial(jax.jit, static_argnames="model")
def _features(variables: Any, images: Array, model: SegNeXt) -> Any:
    return model.apply(variables, images, method=lambda model, x: model.backbone(x))


def load(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    which: str | int = "latest",
    devices: Sequence[Any] | None = None,
) -> Predictor:
    """Load a network: a run's workdir, a converted folder, or a PyTorch checkpoint.

    Args:
      path: The folder or file (see `segnext_jax.weights`).
      dataset: Whose classes a checkpoint file knows; needed where their number does not
        tell it.
      overrides: Fields of its configuration to set: ``"evaluation.mode=slide"``, ...
      which: The checkpoint of a run: ``"latest"``, ``"best"`` or the number of a step.
      devices: Those of this process that share a batch. None: the first alone.

    Raises:
      ValueError: If there is no whole network at ``path``, or a field has an impossible
        value or is not used to predict.
    """
    stored = weights.load_network(path, which, dataset)
    assert stored.config is not None  # Of a network there always is one.
    config_lib.with_overrides(stored.config, overrides, str(path))
    given = [text.partition("=")[0] for text in overrides]
    config_lib.refuse_unused(given, "prediction", str(path))
    predictor = Predictor(
        stored.variables,
        stored.config,
        devices,
        step=stored.step,
        score=stored.score,
    )
    here = storage.as_path(path)
    # By step: a run that goes on has a newer checkpoint later.
    predictor.address = (
        str(here.absolute()) if here.exists() else str(path),
        *(dataset, tuple(overrides), which if stored.step is None else stored.step),
    )
    return predictor
