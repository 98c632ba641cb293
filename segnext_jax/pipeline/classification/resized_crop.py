"""Photographs to squares: the random crops of training, the central one of evaluation.

Source: ``RandomResizedCropAndInterpolation`` and ``transforms_imagenet_eval`` of timm
0.4.12, whose pixels Pillow makes: it weights all pixels that a new one covers
(antialiasing), which OpenCV's interpolation does not.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline.classification.random_augment import (
    INTERPOLATIONS,
    RandAugment,
    jitter_colours,
)
from segnext_jax.pipeline.classification.sources import Photograph
from segnext_jax.pipeline.geometry import CropWindow, Size
from segnext_jax.pipeline.stream import Batch

_NUM_TRIES = 10


def draw_window(
    size: Size,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
    rng: np.random.Generator,
) -> CropWindow:
    """Draw a part of an image by its area and its aspect ratio.

    Area and place are uniform, and the ratio is uniform in its logarithm. If ten draws
    do not fit, the part is the largest central one whose ratio is in the range.

    Args:
      size: (height, width) of the image.
      area_range: Smallest and largest share of the image's area.
      aspect_range: Smallest and largest width over height.
      rng: Draws the area, the aspect ratio and the place.

    Returns:
      The part, in pixels of the image.
    """
    height, width = size
    for _ in range(_NUM_TRIES):
        area = height * width * rng.uniform(*area_range)
        aspect = math.exp(rng.uniform(*np.log(aspect_range)))
        part_height = round(math.sqrt(area / aspect))
        part_width = round(math.sqrt(area * aspect))
        if 0 < part_height <= height and 0 < part_width <= width:
            top = int(rng.integers(height - part_height + 1))
            left = int(rng.integers(width - part_width + 1))
            return CropWindow(top, left, part_height, part_width)
    low, high = aspect_range
    part_height = min(height, max(1, round(width / low)))
    part_width = min(width, max(1, round(height * high)))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return CropWindow(top, left, part_height, part_width)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Turn a photograph into a training crop.

    Attributes:
      crop_size: (height, width) of the crop.
      area_range: See `draw_window`.
      aspect_range: See `draw_window`.
      flip_probability: Probability of mirroring.
      augment: Applied to the crop; None for nothing.
      colour_jitter: Strength of `jitter_colours`, after that; 0 for nothing.
    """

    crop_size: Size
    area_range: tuple[float, float]
    aspect_range: tuple[float, float]
    flip_probability: float
    augment: RandAugment | None
    colour_jitter: float

    @classmethod
    def from_config(cls, config: Any) -> "RandomResizedCrop":
        """Return how a configuration crops and changes photographs in training."""
        options, data = config.classification, config.data
        red, green, blue = (min(255, round(value)) for value in data.mean)
        augment = RandAugment(
            num_operations=options.augment_operations,
            probability=options.augment_probability,
            magnitude=options.augment_magnitude,
            magnitude_deviation=options.augment_deviation,
            fill=(red, green, blue),
        )
        return cls(
            crop_size=data.crop_size,
            area_range=options.area_range,
            aspect_range=options.aspect_range,
            flip_probability=data.flip_probability,
            augment=augment if options.augment_operations else None,
            colour_jitter=options.colour_jitter,
        )

    def empty(self, num_examples: int) -> Batch:
        """Return the arrays of a batch, to be written.

        Returns:
          `image`, uint8 [examples, crop height, crop width, 3], RGB, and `label`, int32
          [examples].
        """
        return {
            "image": np.empty((num_examples, *self.crop_size, 3), np.uint8),
            "label": np.empty(num_examples, np.int32),
        }

    def write(
        self, example: Photograph, rng: np.random.Generator, batch: Batch, row: int
    ) -> None:
        """Decode and crop one photograph into a row of a batch.

        Raises:
          ValueError: If the photograph cannot be decoded.
        """
        batch["image"][row] = self(decode_photograph(example), rng)
        batch["label"][row] = example["label"]

    def __call__(
        self, image: UInt8[np.ndarray, "height width 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
        """Return the crop; a function of the image and the generator's state."""
        window = draw_window(image.shape[:2], self.area_range, self.aspect_range, rng)
        part = image[
            window.top : window.top + window.height,
            window.left : window.left + window.width,
        ]
        # The part alone: Pillow's `box` would look at pixels around it.
        crop = _resize(part, self.crop_size, INTERPOLATIONS[rng.integers(2)])
        if rng.random() < self.flip_probability:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.augment is not None:
            crop = self.augment(crop, rng)
        if self.colour_jitter:
            crop = jitter_colours(crop, self.colour_jitter, rng)
        return np.asarray(crop)


def central_crop(
    image: UInt8[np.ndarray, "height width 3"], crop_size: Size, share: float
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Resize a photograph, its aspect ratio kept, and cut out the middle.

    The photograph gets the smallest size at which both its sides are at least
    ``floor(side / share)`` of the crop's sides. For a square crop, that is the new
    length of the photograph's shorter side. The interpolation is bicubic.

    Args:
      image: The photograph.
      crop_size: (height, width) of the result.
      share: Side of the crop over the photograph's shorter side, in (0, 1].
    """
    height, width = image.shape[:2]
    need_height, need_width = (math.floor(side / share) for side in crop_size)
    if need_height * width <= need_width * height:
        resized = (int(need_width * height / width), need_width)
    else:
        resized = (need_height, int(need_height * width / height))
    whole = _resize(image, resized, Image.Resampling.BICUBIC)
    # Half up or down to the even number, as torchvision's center_crop does.
    top, left = (round((a - b) / 2) for a, b in zip(resized, crop_size, strict=True))
    box = (left, top, left + crop_size[1], top + crop_size[0])
    return np.asarray(whole.crop(box))


def _resize(
    pixels: UInt8[np.ndarray, "height width 3"], size: Size, resample: Image.Resampling
) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.resize((size[1], size[0]), resample)


def decode_photograph(
    photograph: Photograph,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of a photograph, RGB.

    Raises:
      ValueError: If the photograph cannot be decoded.
    """
    return decode_image(photograph["image"], photograph["image_id"])
