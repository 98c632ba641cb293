"""The windows in which a network sees its input; a whole image is one window."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from segnext_jax.evaluation import resampling, scoring
from segnext_jax.evaluation.batch import FittedSize, Size

# Normalised images to scores at about 1/8 of their size.
LogitsFn = Callable[
    [Float[Array, "batch height width 3"]],
    Float[Array, "batch small_height small_width classes"],
]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How windows lie on network inputs of one size.

    Attributes:
      outer: (height, width) of the inputs.
      size: (height, width) of a window.
      starts: Tops of the rows of windows, lefts of the columns.
    """

    outer: Size
    size: Size
    starts: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def over(cls, outer: Size, limits: Size | None, stride: Size | None) -> "Windows":
        """Cover inputs.

        Args:
          outer: (height, width) of the inputs.
          limits: The largest (height, width) of a window; None: that of the inputs.
          stride: Distance of the windows; see `resampling.window_starts`.
        """
        limits = limits or outer
        size = min(limits[0], outer[0]), min(limits[1], outer[1])
        stride = stride or size
        tops, lefts = (
            tuple(resampling.window_starts(outer[axis], size[axis], stride[axis]))
            for axis in (0, 1)
        )
        return cls(outer, size, (tops, lefts))

    def row(
        self, logits_fn: LogitsFn, inputs: Float[Array, "batch _ width 3"], top: int
    ) -> Float[Array, "batch small_height small_widths classes"]:
        """Return the logits of a row of windows, side by side.

        Args:
          logits_fn: The network.
          inputs: Normalised images, or rows of them.
          top: The first row of ``inputs`` that the windows cover.
        """
        if inputs.shape[1:3] == self.size:
            return logits_fn(inputs)
        windows = (
            scoring.cut_window(inputs, top, left, size=self.size)
            for left in self.starts[1]
        )
        return jnp.concatenate([logits_fn(window) for window in windows], axis=2)

    def axes(
        self,
        row_shape: tuple[int, ...],
        fitted_sizes: Sequence[FittedSize],
        image_sizes: Sequence[Size],
        is_mirrored: bool,
    ) -> tuple[list[resampling.Axis], list[resampling.Axis]]:
        """Return how logits lie on the original images, vertically and horizontally.

        Args:
          row_shape: The shape of what `row` returns.
          fitted_sizes: The fitted size of each image.
          image_sizes: (height, width) of each original image.
          is_mirrored: Whether the inputs are mirrored.
        """
        small = row_shape[1], row_shape[2] // len(self.starts[1])

        def along(axis: int, **options: Any) -> list[resampling.Axis]:
            return [
                resampling.Axis(
                    image=image_size[axis],
                    inner=fitted.inner[axis],
                    outer=self.outer[axis],
                    window=self.size[axis],
                    starts=self.starts[axis],
                    small=small[axis],
                    **options,
                )
                for image_size, fitted in zip(image_sizes, fitted_sizes, strict=True)
            ]

        return along(0, is_mirrored=False), along(1, is_mirrored=is_mirrored)
