"""What a network sees in one image: labels, probabilities, pictures."""

import dataclasses
import functools
import os
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from segnext_jax.cli import storage
from segnext_jax.datasets import DatasetSpec
from segnext_jax.images import pictures
from segnext_jax.predict import files


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a network sees in one image. A notebook shows image, overlay and legend.

    Attributes:
      image: The image itself, RGB, 0..255.
      labels: Best class of each pixel, as train ids.
      spec: Names and colours of the classes.
      probabilities_fn: Computes `probabilities`.
    """

    image: UInt8[np.ndarray, "height width 3"]
    labels: UInt8[np.ndarray, "height width"]
    spec: DatasetSpec
    probabilities_fn: Callable[[], np.ndarray]

    def __repr__(self) -> str:
        """Say the size and what is seen, largest class first."""
        height, width = self.labels.shape
        areas = [f"{name} {share:.1%}" for name, share in self.class_areas().items()]
        more = ["..."] if len(areas) > 5 else []
        return f"Prediction({', '.join([f'{height}x{width}', *areas[:5], *more])})"

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "height width classes"]:
        """Softmax scores of each pixel, float32.

        The network runs again when the caller first asks for the scores. The scores of
        a list of images would fill the memory, and most callers never look at them.
        """
        return self.probabilities_fn()

    def overlay(self, opacity: float = 0.5) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image tinted by the classes' colours."""
        return pictures.overlay(self.image, self.labels, self.spec.colours, opacity)

    def side_by_side(
        self, opacity: float = 0.5
    ) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
        """Return image and overlay beside each other, above a legend with shares."""
        return pictures.side_by_side(self.image, None, self.labels, self.spec, opacity)

    def class_areas(self) -> dict[str, float]:
        """Return the share of pixels of each class that occurs, largest first."""
        counts = np.bincount(self.labels.reshape(-1), minlength=self.spec.num_classes)
        order = np.argsort(-counts, kind="stable")
        shares = counts / self.labels.size
        return {self.spec.classes[i]: float(shares[i]) for i in order if counts[i]}

    def save(
        self, path: str | os.PathLike[str], kind: str = "labels", opacity: float = 0.5
    ) -> None:
        """Write a file as `segnext-jax predict` does; replace what is there.

        Args:
          path: The file; its suffix must be the kind's.
          kind: "labels" (.png: ids with a palette), "overlay" or "side_by_side" (.jpg),
            or "probabilities" (.npz: float16).
          opacity: Weight of the class colours in pictures, in [0, 1].

        Raises:
          ValueError: If the kind is unknown, or the path does not end in the kind's
            suffix.
        """
        path = storage.as_path(path)
        suffixes = files.SUFFIXES
        if kind not in suffixes:
            raise ValueError(
                f"kind must be one of {', '.join(suffixes)}: got {kind!r}."
            )
        if path.suffix.lower() != suffixes[kind]:
            raise ValueError(
                f"a file of {kind} must end in {suffixes[kind]}: got "
                f"{path.name}. Other kinds: {', '.join(suffixes)}."
            )
        options = files.FileOptions(opacity=opacity)
        with files.open_whole(path) as file:
            target = files.begin(kind, file, self.image, self.spec, options)
            has_probabilities = kind == "probabilities"
            target.write(self.labels, self.probabilities if has_probabilities else None)
            target.close()

    def _repr_png_(self) -> bytes:
        is_encoded, encoded = cv2.imencode(".png", self.side_by_side()[..., ::-1])
        assert is_encoded
        return encoded.tobytes()
