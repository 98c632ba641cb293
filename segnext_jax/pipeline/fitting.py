"""Fitting an image to the network for evaluation: to a scale, and to a multiple."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import UInt8

from segnext_jax.evaluation.batch import FittedSize
from segnext_jax.pipeline.geometry import Size, network_size, rescaled_size
from segnext_jax.pipeline.transforms import resize_for_network

ALIGNMENTS = ("resize", "pad")


@dataclasses.dataclass(frozen=True)
class Fitting:
    """The rule by which images of any size become inputs of the network.

    Attributes:
      scale: (long, short) bounds of the resized image at ratio 1, as in
        `rescaled_size`; None: the image's own size.
      ratios: The image is fitted once for each: to the scale times the ratio, cut to
        integers, or to its own size times the ratio, rounded.
      multiple: Both sides of the input are multiples of this.
      alignment: How they come to be so. "resize" stretches the image, a second time
        after the resize to the scale (official); "pad" adds rows below and columns
        to the right (mmsegmentation 1.x), which are 0 once normalised, and whose
        scores are cut off.

    Source: MultiScaleFlipAug, Resize and ResizeToMultiple in mmseg/datasets/pipelines
    of SegNeXt@c87bcae; SegDataPreProcessor with size_divisor of mmsegmentation 1.2.2.
    """

    scale: tuple[int, int] | None = None
    ratios: tuple[float, ...] = (1.0,)
    multiple: int = 1
    alignment: str = "resize"

    def __post_init__(self) -> None:
        """Check the rule.

        Raises:
          ValueError: If the multiple is below 1, there is no ratio, or the alignment is
            unknown.
        """
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1: got {self.multiple}.")
        if not self.ratios:
            raise ValueError("an image needs at least one ratio to be fitted to: none.")
        if self.alignment not in ALIGNMENTS:
            raise ValueError(
                f"alignment must be one of {', '.join(ALIGNMENTS)}: got "
                f"{self.alignment!r}."
            )

    @classmethod
    def from_config(cls, options: Any) -> "Fitting":
        """Return the rule of the `evaluation` section of a configuration."""
        return cls(
            scale=None if options.scale == (0, 0) else options.scale,
            ratios=options.ratios,
            multiple=options.size_multiple,
            alignment=options.alignment,
        )

    def sizes(self, size: Size) -> tuple[FittedSize, ...]:
        """Return the sizes of an image of (height, width), one for each ratio."""
        return tuple(
            self._sizes(self._scale(size, ratio), size) for ratio in self.ratios
        )

    def images(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> tuple[UInt8[np.ndarray, "_ _ 3"], ...]:
        """Return the image as the network takes it, one array for each ratio.

        Rows and columns of padding are 0. The network must not see the padding before
        it is set to the mean colour.
        """
        size = image.shape[:2]
        fitted = []
        for ratio, sizes in zip(self.ratios, self.sizes(size), strict=True):
            scale = self._scale(size, ratio)
            multiple = self.multiple if self.alignment == "resize" else 1
            resized = resize_for_network(image, scale, multiple)
            if sizes.inner != sizes.outer:
                canvas = np.zeros((*sizes.outer, 3), np.uint8)
                canvas[: sizes.inner[0], : sizes.inner[1]] = resized
                resized = canvas
            fitted.append(resized)
        return tuple(fitted)

    def _scale(self, size: Size, ratio: float) -> tuple[int, int] | None:
        if self.scale is not None:
            return int(self.scale[0] * ratio), int(self.scale[1] * ratio)
        if ratio == 1:
            return None
        height, width = (max(int(side * ratio + 0.5), 1) for side in size)
        return height, width

    def _sizes(self, scale: tuple[int, int] | None, size: Size) -> FittedSize:
        outer = network_size(size, scale, self.multiple)
        if self.alignment == "resize":
            return FittedSize(outer, outer)
        return FittedSize(rescaled_size(size, scale) if scale else size, outer)
