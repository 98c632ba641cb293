"""Draw and prepare the shapes data set: `python data/shapes/prepare.py`.

Every image is a function of (split, index) alone. Class is told by texture and outline;
colour says nothing, because each texture is a field of ranks in [0, 1] that are spread
evenly over its region, and the ranks become colours between a random dark one and a
random light one.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from segnext_jax.datasets import get_spec
from segnext_jax.preparation.command import main
from segnext_jax.preparation.folders import RawFolder, SeveralFolders
from segnext_jax.preparation.segmentation import SegmentationBuilder

HEIGHT, WIDTH = 96, 128
NUM_EXAMPLES = {"train": 800, "val": 100}
# The first word of every seed: no image of one split can occur in the other.
SPLIT_SEEDS = {"train": 1, "val": 2}

_SUPERSAMPLING = 3  # Sub-pixels per pixel and side; odd, so that pixel centres exist.
_DIAMETER_PX = (42.0, 76.0)
_NUM_OBJECTS = (3, 5)
_MARGIN_PX = 16  # Centres keep this distance from the border; objects may be cut.
_NOISE_STD = 8.0
# Grey levels of the dark and the light colour of a texture, and their tint.
_DARK, _LIGHT = (40.0, 80.0), (175.0, 215.0)
_TINT = 40.0
_MAX_HIDDEN = 0.3  # Part of an object that a later one may cover.

Field = Float[np.ndarray, "height width"]


def draw_example(
    split: str, index: int
) -> tuple[UInt8[np.ndarray, "96 128 3"], UInt8[np.ndarray, "96 128"]]:
    """Draw one image and its exact labels.

    Args:
      split: "train" or "val".
      index: Number of the example in its split.

    Returns:
      The RGB image and the train id of every pixel: the class that covers most of it.
    """
    rng = np.random.default_rng([SPLIT_SEEDS[split], index])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    image = _paint(_clouds(rng), np.ones((HEIGHT, WIDTH), bool), rng)
    size = (HEIGHT * _SUPERSAMPLING, WIDTH * _SUPERSAMPLING)
    labels = np.zeros(size, np.uint8)
    visible: list[tuple[Bool[np.ndarray, "rows columns"], int]] = []

    num_objects = int(rng.integers(_NUM_OBJECTS[0], _NUM_OBJECTS[1] + 1))
    for class_id in rng.permutation(np.arange(1, 7))[:num_objects]:
        for _ in range(20):
            radius = rng.uniform(*_DIAMETER_PX) / 2
            centre = rng.uniform(_MARGIN_PX, [HEIGHT - _MARGIN_PX, WIDTH - _MARGIN_PX])
            angle = rng.uniform(0, 2 * np.pi)
            mask = _rasterise(_OUTLINES[class_id - 1], centre, radius, angle, size)
            if all(
                np.count_nonzero(seen & mask) <= _MAX_HIDDEN * area
                for seen, area in visible
            ):
                break
        else:
            continue
        visible = [(seen & ~mask, area) for seen, area in visible]
        visible.append((mask, int(np.count_nonzero(mask))))
        labels[mask] = class_id

        coverage = _count(mask) / np.float32(_SUPERSAMPLING**2)
        dy, dx = y - centre[0], x - centre[1]
        u = np.cos(angle) * dx + np.sin(angle) * dy
        v = -np.sin(angle) * dx + np.cos(angle) * dy
        field = _TEXTURES[class_id - 1](u, v, rng)
        painted = _paint(field, coverage > 0, rng)
        image += coverage[..., None] * (painted - image)

    image *= _light(rng)[..., None]
    image += rng.normal(0, _NOISE_STD, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), _majority(labels)


# Outlines: closed polygons around the origin, in units of the radius, (x, y).


def _regular(num_corners: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(num_corners) / num_corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _star() -> np.ndarray:
    corners = _regular(10)
    corners[1::2] *= 0.58
    return corners


def _cross() -> np.ndarray:
    a, b = 1.0, 0.42
    return np.array(
        [(a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b)]
        + [(-a, -b), (-b, -b), (-b, -a), (b, -a), (b, -b), (a, -b)]
    )


# One entry per class 1..6: disc, square, triangle, star, ring, cross. The second
# polygon of the ring is its hole.
_OUTLINES: tuple[tuple[np.ndarray, ...], ...] = (
    (0.9 * _regular(48),),
    (_regular(4),),
    (1.1 * _regular(3),),
    (1.1 * _star(),),
    (_regular(48), 0.45 * _regular(48)),
    (_cross(),),
)


def _rasterise(
    outline: tuple[np.ndarray, ...],
    centre: np.ndarray,
    radius: float,
    angle: float,
    size: tuple[int, int],
) -> Bool[np.ndarray, "rows columns"]:
    """Fill an outline on the grid of sub-pixels."""
    rotation = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    shift_bits = 4
    polygons = []
    for polygon in outline:
        pixels = radius * polygon @ rotation + centre[::-1]
        # Pixel k covers [k - 0.5, k + 0.5]: the same edges on the finer grid.
        fine = (pixels + 0.5) * _SUPERSAMPLING - 0.5
        polygons.append(np.rint(fine * 2**shift_bits).astype(np.int32))
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, polygons, 1, shift=shift_bits)
    return mask.astype(bool)


def _count(fine: Bool[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "96 128"]:
    """Count the sub-pixels that are set in each pixel."""
    offsets = range(_SUPERSAMPLING)
    parts = [
        fine[i::_SUPERSAMPLING, j::_SUPERSAMPLING] for i in offsets for j in offsets
    ]
    return np.stack(parts).sum(axis=0, dtype=np.uint8)


def _majority(fine: UInt8[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "96 128"]:
    votes = np.stack([_count(fine == class_id) for class_id in range(7)])
    return votes.argmax(0).astype(np.uint8)


# Textures: fields over the object's own axes (u, v), in pixels. Only the order of their
# values counts, `_paint` spreads them evenly.


def _wide_stripes(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return np.sin(2 * np.pi * u / rng.uniform(11, 13) + rng.uniform(0, 6.28))


def _narrow_stripes(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return np.sin(2 * np.pi * u / rng.uniform(4.5, 5.5) + rng.uniform(0, 6.28))


def _checks(u: Field, v: Field, rng: np.random.Generator) -> Field:
    period = rng.uniform(19, 22)
    # Axes at 45 degrees to the square's diagonal, that is along its sides.
    a, b = (u + v) / np.sqrt(2), (u - v) / np.sqrt(2)
    return np.sin(2 * np.pi * a / period) * np.sin(2 * np.pi * b / period)


def _dots(u: Field, v: Field, rng: np.random.Generator) -> Field:
    spacing = rng.uniform(9, 11)
    rows = np.sqrt(3) * spacing
    distances = []
    for offset in (0.0, 0.5):
        a = (u / spacing + offset + 0.5) % 1 - 0.5
        b = (v / rows + offset + 0.5) % 1 - 0.5
        distances.append(np.hypot(a * spacing, b * rows))
    return -np.minimum(*distances)


def _speckle(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return rng.normal(size=u.shape)


def _blotches(u: Field, v: Field, rng: np.random.Generator) -> Field:
    return _smooth_noise(rng.uniform(1.3, 1.6), rng)


def _clouds(rng: np.random.Generator) -> Field:
    return _smooth_noise(rng.uniform(9, 11), rng)


def _smooth_noise(scale_px: float, rng: np.random.Generator) -> Field:
    return cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), scale_px)


_TEXTURES: tuple[Callable[[Field, Field, np.random.Generator], Field], ...] = (
    _wide_stripes,
    _checks,
    _dots,
    _speckle,
    _narrow_stripes,
    _blotches,
)


def _paint(
    field: Field, region: Bool[np.ndarray, "96 128"], rng: np.random.Generator
) -> Float[np.ndarray, "96 128 3"]:
    """Turn the order of the field's values within a region into colours.

    Ranks are spread evenly over [0, 1] and then drawn towards the two ends, alike for
    every texture: the distribution of a region's colours depends on its two random
    colours only, never on its class.
    """
    values = field[region]
    ranks = np.empty(values.size)
    ranks[np.argsort(values, kind="stable")] = (np.arange(values.size) + 0.5) / (
        values.size
    )
    weights = np.zeros((HEIGHT, WIDTH))
    weights[region] = 0.5 + 0.5 * np.tanh(4 * ranks - 2) / np.tanh(2)
    tints = rng.uniform(-_TINT, _TINT, (2, 3))
    tints -= tints.mean(1, keepdims=True)
    colours = np.array([[rng.uniform(*_DARK)], [rng.uniform(*_LIGHT)]]) + tints
    return colours[0] + weights[..., None] * (colours[1] - colours[0])


def _light(rng: np.random.Generator) -> Field:
    """Draw a slow change of brightness over the image."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)


class Shapes(SegmentationBuilder):
    """Six classes of textured objects on textured ground."""

    spec = get_spec("shapes")

    def find_examples(self, root: RawFolder) -> Mapping[str, Sequence[tuple[str, int]]]:
        """List (split, index) of every image; nothing is read."""
        return {
            split: [(split, index) for index in range(count)]
            for split, count in NUM_EXAMPLES.items()
        }

    def load(
        self, example: tuple[str, int]
    ) -> tuple[str, bytes, UInt8[np.ndarray, "height width"]]:
        """Draw one example and encode it as JPEG."""
        split, index = example
        image, labels = draw_example(split, index)
        is_encoded, encoded = cv2.imencode(
            ".jpg",
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            # Full chroma: halving it would grey fine textures, and colour would tell.
            [
                cv2.IMWRITE_JPEG_QUALITY,
                95,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
            ],
        )
        assert is_encoded
        return f"{split}_{index:04d}", encoded.tobytes(), labels

    def _open(self) -> Mapping[str, Sequence[tuple[str, int]]]:
        return self.find_examples(SeveralFolders(()))


if __name__ == "__main__":
    sys.exit(main(Shapes))
