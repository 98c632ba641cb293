"""Pixels: one pass from the decoded image to the training crop, and the test resize.

Source: mmseg/datasets/pipelines/transforms.py in SegNeXt@c87bcae (Resize, RandomCrop,
RandomFlip, Pad, ResizeToMultiple).

Differs: the official code resizes the whole image, cuts the crop out, mirrors it and
pads it. Here one affine warp goes straight to the crop: the same pixel positions, grey
levels that differ by rounding (mean difference below 0.2), and labels that are equal.
Padding is the rounded mean colour, because normalisation comes later, on the device;
there the official padding is exactly the mean.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.decode import (
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
    window_labels,
)
from segnext_jax.pipeline.sources import Example

# ImageNet's mean (123.675, 116.28, 103.53) in grey levels: zero once normalised.
MEAN_COLOUR = (124, 116, 104)


def crop_image(
    image: UInt8[np.ndarray, "height width 3"],
    resized: Size,
    window: CropWindow,
    crop_size: Size,
    *,
    is_flipped: bool,
    fill: tuple[int, int, int] = MEAN_COLOUR,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Resize, cut, mirror and pad an image in one pass.

    Target pixel x of a window that starts at `left` lies at (left + x + 1/2) * step
    - 1/2 in the image, step = width / resized width (centres of pixels, no
    antialiasing, edges repeated); mirrored, x runs from the right.

    Args:
        image: The decoded image.
        resized: (height, width) that the whole image would be resized to.
        window: The part of the resized image to keep.
        crop_size: (height, width) of the result.
        is_flipped: Whether to mirror the window left to right.
        fill: Colour below and to the right of the window.

    Returns:
        The crop.
    """
    crop = np.empty((*crop_size, 3), np.uint8)
    crop[window.height :] = fill
    crop[: window.height, window.width :] = fill
    step_y, step_x = image.shape[0] / resized[0], image.shape[1] / resized[1]
    left, direction = window.left, 1
    if is_flipped:
        left, direction = window.left + window.width - 1, -1
    matrix = np.array(
        [
            [direction * step_x, 0, (left + 0.5) * step_x - 0.5],
            [0, step_y, (window.top + 0.5) * step_y - 0.5],
        ]
    )
    cv2.warpAffine(
        image,
        matrix,
        (window.width, window.height),
        dst=crop[: window.height, : window.width],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return crop


def crop_labels(
    labels: UInt8[np.ndarray, "height width"],
    resized: Size,
    window: CropWindow,
    crop_size: Size,
    *,
    is_flipped: bool,
    fill: int,
) -> UInt8[np.ndarray, "crop_height crop_width"]:
    """Resize, cut, mirror and pad a label map without ever mixing ids.

    Args:
        labels: The decoded label map.
        resized: (height, width) that the whole map would be resized to.
        window: The part of the resized map to keep.
        crop_size: (height, width) of the result.
        is_flipped: Whether to mirror the window left to right.
        fill: Id below and to the right of the window.

    Returns:
        The crop: exactly the nearest-neighbour values of OpenCV.
    """
    inside = window_labels(labels, resized, window)
    crop = np.full(crop_size, fill, np.uint8)
    crop[: window.height, : window.width] = inside[:, ::-1] if is_flipped else inside
    return crop


@dataclasses.dataclass(frozen=True)
class RandomScaleCropFlip:
    """Turn an encoded example into a training crop.

    A random map: the result is a function of the example and of the generator's
    state. Numbers are drawn in the official order: scale, rows and columns of windows,
    flip.

    Attributes:
        num_classes: Ids 0..num_classes-1 are classes; others are refused.
        ignore_label: Id of ignored pixels and of padding.
        crop_size: (height, width) of the crop.
        base_scale: (long, short) bounds of the resized image at ratio 1.
        scale_range: Smallest and largest ratio.
        max_class_share: Largest share of one class in a crop, see `draw_crop`.
        flip_probability: Probability of mirroring.
    """

    num_classes: int
    ignore_label: int
    crop_size: Size
    base_scale: tuple[int, int]
    scale_range: tuple[float, float]
    max_class_share: float
    flip_probability: float

    def __call__(
        self, example: Example, rng: np.random.Generator
    ) -> dict[str, UInt8[np.ndarray, "..."]]:
        """Decode, check, scale, crop and mirror one example.

        Args:
            example: Encoded photograph, label map (encoded or decoded), name.
            rng: Source of the random numbers.

        Returns:
            `image`, uint8 [crop height, crop width, 3], RGB, and `label`, uint8
            [crop height, crop width].

        Raises:
            ValueError: A file cannot be decoded, the sizes differ, or the label map
                holds an id outside the table.
        """
        image, labels = decode_pair(example)
        check_labels(labels, self.num_classes, self.ignore_label, example["image_id"])
        scale = draw_scale(self.base_scale, self.scale_range, rng)
        resized = rescaled_size(labels.shape, scale)
        window = draw_crop(
            labels,
            resized,
            self.crop_size,
            max_class_share=self.max_class_share,
            ignore_label=self.ignore_label,
            rng=rng,
        )
        is_flipped = bool(rng.random() < self.flip_probability)
        return {
            "image": crop_image(
                image, resized, window, self.crop_size, is_flipped=is_flipped
            ),
            "label": crop_labels(
                labels,
                resized,
                window,
                self.crop_size,
                is_flipped=is_flipped,
                fill=self.ignore_label,
            ),
        }


def decode_pair(
    example: Example,
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
    """Decode the photograph and the label map of an example.

    Args:
        example: Encoded photograph, label map (encoded or decoded), name.

    Returns:
        The RGB image and the label map, of one size.

    Raises:
        ValueError: One cannot be decoded, or their sizes differ.
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
