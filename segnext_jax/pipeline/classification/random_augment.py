"""RandAugment and colour jitter of a photograph, with Pillow's own operations.

Source: ``rand-m9-mstd0.5-inc1`` of timm 0.4.12 (`timm/data/auto_augment.py`), which VAN
is trained with, and ``ColorJitter`` of torchvision. They are defined by what Pillow
does, so Pillow does it here, too.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

INTERPOLATIONS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)

# The largest magnitude, at which an operation is applied in full.
MAX_MAGNITUDE = 10.0


@dataclasses.dataclass(frozen=True)
class Draw:
    """What is drawn for one operation.

    Attributes:
      level: Magnitude over the largest, in [0, 1].
      sign: 1 or -1, for operations that have two directions.
      resample: How pixels are interpolated, for operations that move them.
      fill: Colour where the moved image ends.
    """

    level: float
    sign: int
    resample: Image.Resampling
    fill: tuple[int, int, int]


def _affine(
    image: Image.Image, matrix: tuple[float | int, ...], draw: Draw
) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=draw.resample,
        fillcolor=draw.fill,
    )


def _rotate(image: Image.Image, draw: Draw) -> Image.Image:
    degrees = draw.sign * 30 * draw.level
    return image.rotate(degrees, resample=draw.resample, fillcolor=draw.fill)


def _shear_x(image: Image.Image, draw: Draw) -> Image.Image:
    return _affine(image, (1, draw.sign * 0.3 * draw.level, 0, 0, 1, 0), draw)


def _shear_y(image: Image.Image, draw: Draw) -> Image.Image:
    return _affine(image, (1, 0, 0, draw.sign * 0.3 * draw.level, 1, 0), draw)


def _translate_x(image: Image.Image, draw: Draw) -> Image.Image:
    pixels = draw.sign * 0.45 * draw.level * image.width
    return _affine(image, (1, 0, pixels, 0, 1, 0), draw)


def _translate_y(image: Image.Image, draw: Draw) -> Image.Image:
    pixels = draw.sign * 0.45 * draw.level * image.height
    return _affine(image, (1, 0, 0, 0, 1, pixels), draw)


def _posterize(image: Image.Image, draw: Draw) -> Image.Image:
    """Keep the upper 4 to 0 bits; Pillow's own function refuses to keep none."""
    step = 2 ** (4 + int(4 * draw.level))
    return image.point(3 * [v // step * step for v in range(256)])


def _solarize(image: Image.Image, draw: Draw) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(256 * draw.level))


def _solarize_add(image: Image.Image, draw: Draw) -> Image.Image:
    """Brighten the dark half of the values."""
    added = int(110 * draw.level)
    table = [min(255, v + added) if v < 128 else v for v in range(256)]
    return image.point(3 * table)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> "Operation":
    def enhance(image: Image.Image, draw: Draw) -> Image.Image:
        return kind(image).enhance(1 + draw.sign * 0.9 * draw.level)

    return enhance


Operation = Callable[[Image.Image, Draw], Image.Image]

# Operations of timm's "inc1": each changes the image more at a higher level.
OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Apply operations drawn from `OPERATIONS`, with replacement.

    Attributes:
      num_operations: Drawn for each image (timm: 2).
      probability: With which each of them is applied (timm: 0.5).
      magnitude: Mean of the magnitude, of at most 10 (timm: ``m9``).
      magnitude_deviation: Its standard deviation (``mstd0.5``); the magnitude is cut
        to [0, 10].
      fill: Colour where a moved image ends (timm: the mean that images are
        normalised with).
    """

    num_operations: int
    probability: float
    magnitude: float
    magnitude_deviation: float
    fill: tuple[int, int, int]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the changed image; a function of it and the generator's state."""
        names = tuple(OPERATIONS)
        for number in rng.integers(len(names), size=self.num_operations):
            is_applied = rng.random() < self.probability
            draw = self._draw(rng)
            if is_applied:
                image = OPERATIONS[names[number]](image, draw)
        return image

    def _draw(self, rng: np.random.Generator) -> Draw:
        magnitude = rng.normal(self.magnitude, self.magnitude_deviation)
        return Draw(
            level=float(np.clip(magnitude, 0, MAX_MAGNITUDE)) / MAX_MAGNITUDE,
            sign=1 if rng.random() < 0.5 else -1,
            resample=INTERPOLATIONS[rng.integers(2)],
            fill=self.fill,
        )


def jitter_colours(
    image: Image.Image, strength: float, rng: np.random.Generator
) -> Image.Image:
    """Change brightness, contrast and saturation, in an order that is drawn.

    Args:
      image: RGB.
      strength: Each factor is uniform in [1 - strength, 1 + strength], at least 0.
      rng: Draws the order and the factors.
    """
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, size=len(kinds))
    for number in rng.permutation(len(kinds)):
        image = kinds[number](image).enhance(float(factors[number]))
    return image
