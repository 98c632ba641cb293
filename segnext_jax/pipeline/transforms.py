"""Pixels: from the decoded image to the training crop, and the test resize.

Source: mmseg/datasets/pipelines/transforms.py in SegNeXt@c87bcae (Resize, RandomCrop,
RandomFlip, Pad, ResizeToMultiple).

Differs: the official code resizes the whole image, then cuts the crop out. Here only
the part that the crop shows is resized: the same pixel positions to 1/32 pixel (mean
difference below 0.25 grey levels), and labels that are equal. One affine warp from
image to crop takes three times as long as this with OpenCV 5. Padding is the rounded
mean colour, because normalisation comes later, on the device, where padding is set to 0
as it is in the official code.
"""

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.images.decode import (
    check_labels,
    check_sizes,
    decode_image,
    decode_label,
)
from segnext_jax.pipeline.geometry import (
    CropWindow,
    Size,
    draw_crop,
    draw_scale,
    network_size,
    rescaled_size,
    source_part,
)
from segnext_jax.pipeline.sources import Example
from segnext_jax.pipeline.stream import Batch

# ImageNet's mean (123.675, 116.28, 103.53) in grey levels: zero once normalised.
MEAN_COLOUR = (124, 116, 104)


def resize_window(
    image: UInt8[np.ndarray, "height width 3"], resized: Size, window: CropWindow
) -> UInt8[np.ndarray, "window_height window_width 3"]:
    """Return a window of the resized image; no more than it shows is resized.

    Target pixel x of the resized image lies at (x + 1/2) * step - 1/2 in the image,
    step = width / resized width (centres of pixels, no antialiasing, edges repeated).

    Args:
      image: The decoded image.
      resized: (height, width) that the whole image would be resized to.
      window: The part of the resized image to keep.
    """
    rows = source_part(window.top, window.height, image.shape[0], resized[0])
    columns = source_part(window.left, window.width, image.shape[1], resized[1])
    part = cv2.resize(
        image[rows.source, columns.source],
        None,
        fx=resized[1] / image.shape[1],
        fy=resized[0] / image.shape[0],
        interpolation=cv2.INTER_LINEAR,
    )
    return part[rows.inside, columns.inside]


def place_in_crop(
    window: UInt8[np.ndarray, "height width *channels"],
    crop: UInt8[np.ndarray, "crop_height crop_width *channels"],
    is_flipped: bool,
    fill: int | tuple[int, int, int],
) -> None:
    """Mirror a window, or not, and put it into the upper left corner of a crop.

    Args:
      window: Pixels or labels, no larger than the crop.
      crop: Is written.
      is_flipped: Whether to mirror the window left to right.
      fill: Colour or id below and to the right of the window.
    """
    height, width = window.shape[:2]
    if window.shape != crop.shape:
        padding = _uniform(crop.shape, fill)
        crop[height:] = padding[height:]
        crop[:height, width:] = padding[:height, width:]
    if is_flipped:
        # NumPy mirrors pixel by pixel, ten times slower.
        cv2.flip(window, 1, dst=crop[:height, :width])
    else:
        crop[:height, :width] = window


def rotate_window(
    pixels: UInt8[np.ndarray, "height width *channels"],
    resized: Size,
    window: CropWindow,
    degrees: float,
    *,
    interpolation: int,
    fill: int | tuple[int, int, int],
) -> UInt8[np.ndarray, "window_height window_width *channels"]:
    """Cut a window out of a resized image that is turned about the window's centre.

    The corners of the window show the image around the window, and `fill` only where
    the image ends.

    Args:
      pixels: The decoded image or label map.
      resized: (height, width) that the whole would be resized to.
      window: The part of the resized image to keep.
      degrees: The angle, clockwise.
      interpolation: OpenCV's constant: INTER_LINEAR, or INTER_NEAREST for labels.
      fill: Colour or id outside of the image.
    """
    step = np.array([pixels.shape[1] / resized[1], pixels.shape[0] / resized[0]])
    angle = np.deg2rad(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    middle = np.array([window.width - 1, window.height - 1]) / 2
    corner = np.array([window.left, window.top])
    # Target t lies at (corner + middle + turn (t - middle) + 1/2) * step - 1/2.
    offset = (corner + middle - turn @ middle + 0.5) * step - 0.5
    return cv2.warpAffine(
        pixels,
        np.hstack([turn * step[:, None], offset[:, None]]),
        (window.width, window.height),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


@functools.lru_cache(maxsize=8)
def _uniform(shape: tuple[int, ...], fill: int | tuple[int, int, int]) -> np.ndarray:
    # Kept, because writing a colour to each pixel takes as long as the resize.
    return np.full(shape, fill, np.uint8)


@dataclasses.dataclass(frozen=True)
class RandomScaleCropFlip:
    """Turn an encoded example into a training crop.

    A random map: the result is a function of the example and of the generator's
    state. Numbers are drawn in the official order: scale, rows and columns of windows,
    flip; rotation last, and only where it is asked for.

    Attributes:
      num_classes: Ids 0..num_classes-1 are classes; others are refused.
      ignore_label: Id of ignored pixels and of padding.
      crop_size: (height, width) of the crop.
      base_scale: (long, short) bounds of the resized image at ratio 1.
      scale_range: Smallest and largest ratio.
      max_class_share: Largest share of one class in a crop, see `draw_crop`.
      flip_probability: Probability of mirroring.
      rotation_probability: Probability of turning the window; the bound
        `max_class_share` counts what it shows before that.
      max_rotation: Largest angle to either side, in degrees; uniform.
    """

    num_classes: int
    ignore_label: int
    crop_size: Size
    base_scale: tuple[int, int]
    scale_range: tuple[float, float]
    max_class_share: float
    flip_probability: float
    rotation_probability: float = 0.0
    max_rotation: float = 0.0

    @classmethod
    def from_config(cls, data: Any, spec: DatasetSpec) -> "RandomScaleCropFlip":
        """Return the transform of a configuration's section ``data``."""
        return cls(
            num_classes=spec.num_classes,
            ignore_label=spec.ignore_label,
            crop_size=data.crop_size,
            base_scale=data.base_scale,
            scale_range=data.scale_range,
            max_class_share=data.max_class_share,
            flip_probability=data.flip_probability,
            rotation_probability=data.rotation_probability,
            max_rotation=data.max_rotation,
        )

    def empty(self, num_examples: int) -> Batch:
        """Return the arrays of a batch, to be written.

        Returns:
          `image`, uint8 [examples, crop height, crop width, 3], RGB; `label`, uint8
          [examples, crop height, crop width]; `size`, int32 [examples, 2], height and
          width of what is not padding.
        """
        return {
            "image": np.empty((num_examples, *self.crop_size, 3), np.uint8),
            "label": np.empty((num_examples, *self.crop_size), np.uint8),
            "size": np.empty((num_examples, 2), np.int32),
        }

    def __call__(self, example: Example, rng: np.random.Generator) -> Batch:
        """Return one crop in arrays of its own; see `empty`, without the first axis."""
        batch = self.empty(1)
        self.write(example, rng, batch, 0)
        return {name: values[0] for name, values in batch.items()}

    def write(
        self, example: Example, rng: np.random.Generator, batch: Batch, row: int
    ) -> None:
        """Decode, check, scale, crop and mirror one example into a row of a batch.

        Args:
          example: Encoded photograph, label map (encoded or decoded), name.
          rng: Source of the random numbers.
          batch: What `empty` gives.
          row: The row that is written.

        Raises:
          ValueError: If a file cannot be decoded, the sizes differ, or the label map
            holds an id outside the table.
        """
        image_crop, label_crop = batch["image"][row], batch["label"][row]
        batch["size"][row] = self._crop(example, rng, image_crop, label_crop)

    def _crop(
        self,
        example: Example,
        rng: np.random.Generator,
        image_crop: UInt8[np.ndarray, "crop_height crop_width 3"],
        label_crop: UInt8[np.ndarray, "crop_height crop_width"],
    ) -> Size:
        """Write the two crops; return (height, width) of what is not padding."""
        image, labels = decode_pair(example)
        check_labels(labels, self.num_classes, self.ignore_label, example["image_id"])
        scale = draw_scale(self.base_scale, self.scale_range, rng)
        resized = rescaled_size(labels.shape, scale)
        window, inside = draw_crop(
            labels,
            resized,
            self.crop_size,
            max_class_share=self.max_class_share,
            ignore_label=self.ignore_label,
            rng=rng,
        )
        is_flipped = bool(rng.random() < self.flip_probability)
        if self.rotation_probability and rng.random() < self.rotation_probability:
            place = (
                resized,
                window,
                rng.uniform(-self.max_rotation, self.max_rotation),
            )
            part = rotate_window(
                image, *place, interpolation=cv2.INTER_LINEAR, fill=MEAN_COLOUR
            )
            inside = rotate_window(
                labels, *place, interpolation=cv2.INTER_NEAREST, fill=self.ignore_label
            )
        else:
            part = resize_window(image, resized, window)
        place_in_crop(part, image_crop, is_flipped, MEAN_COLOUR)
        place_in_crop(inside, label_crop, is_flipped, self.ignore_label)
        return window.height, window.width


def decode_pair(
    example: Example,
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
    """Decode the photograph and the label map of an example.

    Args:
      example: Encoded photograph, label map (encoded or decoded), name.

    Returns:
      The RGB image and the label map, of one size.

    Raises:
      ValueError: If the photograph or the label map cannot be decoded, or their sizes
        differ.
    """
    image_id = example["image_id"]
    image = decode_image(example["image"], image_id)
    label = example["label"]
    labels = decode_label(label, image_id) if isinstance(label, bytes) else label
    check_sizes(image, labels, example["image"], image_id)
    return image, labels


def resize_for_network(
    image: UInt8[np.ndarray, "height width 3"],
    scale: tuple[int, int] | None,
    multiple: int = 1,
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resize an image to the size at which it is evaluated.

    Two bilinear passes on bytes, as the official test pipeline has them: to the scale
    with the aspect ratio kept, then stretched to a multiple.

    Args:
      image: The decoded image.
      scale: Two bounds in pixels, see `rescaled_size`; None keeps the size.
      multiple: Both sides of the result are multiples of this; 1 for no stretch.

    Returns:
      The resized image; the image itself where nothing is to do.
    """
    size = image.shape[:2]
    sizes = [rescaled_size(size, scale)] if scale else []
    for height, width in [*sizes, network_size(size, scale, multiple)]:
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image
