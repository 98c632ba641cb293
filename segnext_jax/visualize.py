"""Pictures for people: label maps in colour, overlays, legends, comparisons."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from segnext_jax.datasets.spec import Colour, DatasetSpec

Picture = UInt8[np.ndarray, "height width 3"]

_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_HEIGHT_PX = 22
_PADDING_PX = 8
_HATCH_PERIOD_PX = 8
_MIN_PANEL_HEIGHT_PX = 240


def colour_labels(
    labels: UInt8[np.ndarray, "height width"], colours: Sequence[Colour]
) -> Picture:
    """Give each class its colour.

    Args:
        labels: One id per pixel.
        colours: (red, green, blue) of each class; any other id becomes black.

    Returns:
        An RGB image.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table[labels]


def overlay(
    image: Picture,
    labels: UInt8[np.ndarray, "label_height label_width"],
    colours: Sequence[Colour],
    opacity: float = 0.5,
) -> Picture:
    """Tint an image by its labels; pixels of no class are hatched instead.

    Args:
        image: An RGB image.
        labels: One id per pixel, of the image's size.
        colours: (red, green, blue) of each class.
        opacity: Weight of the class colour in [0, 1].

    Returns:
        An RGB image.

    Raises:
        ValueError: The sizes differ, or the opacity is outside [0, 1].
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(
            "an overlay needs an image and labels of one size: got "
            f"{image.shape[:2]} and {labels.shape} (height, width). Resize one."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in [0, 1]: got {opacity}.")
    tint = colour_labels(labels, colours)
    tinted = cv2.addWeighted(image, 1 - opacity, tint, opacity, 0)
    y, x = np.arange(labels.shape[0])[:, None], np.arange(labels.shape[1])
    is_line = (x + y) % _HATCH_PERIOD_PX < 2
    hatched = np.where(is_line[..., None], image // 2 + 128, image)
    return np.where((labels < len(colours))[..., None], tinted, hatched).astype(
        np.uint8
    )


def legend(classes: Sequence[str], colours: Sequence[Colour], width: int) -> Picture:
    """Draw a swatch and a name for each class, in as many rows as it takes.

    Args:
        classes: Names.
        colours: (red, green, blue) of each.
        width: Width of the picture; a name that is longer is cut off.

    Returns:
        An RGB image of that width.
    """
    cell = _PADDING_PX + 16 + _PADDING_PX // 2
    cell += max((_text_width(name) for name in classes), default=0) + _PADDING_PX
    num_columns = max(1, width // cell)
    num_rows = -(-len(classes) // num_columns)
    height = num_rows * _TEXT_HEIGHT_PX + _PADDING_PX
    picture = np.full((height, width, 3), _PAPER, np.uint8)
    for index, (name, colour) in enumerate(zip(classes, colours, strict=True)):
        row, column = divmod(index, num_columns)
        x = column * cell + _PADDING_PX
        y = row * _TEXT_HEIGHT_PX + _PADDING_PX // 2
        corners = (x, y + 3), (x + 15, y + _TEXT_HEIGHT_PX - 4)
        cv2.rectangle(picture, *corners, colour, cv2.FILLED)
        cv2.rectangle(picture, *corners, _INK, 1)
        _write(picture, name, x + 16 + _PADDING_PX // 2, y)
    return picture


def side_by_side(
    image: Picture,
    truth: UInt8[np.ndarray, "height width"],
    prediction: UInt8[np.ndarray, "height width"],
    spec: DatasetSpec,
    opacity: float = 0.6,
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """Show image, truth and prediction next to each other, with a legend below.

    Small images are enlarged so that the text can be read. The legend names only the
    classes that truth or prediction hold.

    Args:
        image: An RGB image.
        truth: One id per pixel.
        prediction: One id per pixel.
        spec: Classes and colours.
        opacity: Weight of the class colours in [0, 1].

    Returns:
        An RGB image.

    Raises:
        ValueError: The sizes differ, or the opacity is outside [0, 1].
    """
    factor = -(-_MIN_PANEL_HEIGHT_PX // image.shape[0])
    panels = []
    for title, picture in (
        ("image", _enlarge(image, factor)),
        # Enlarged before the overlay: the hatching keeps its width.
        ("truth", _tint_enlarged(image, truth, spec, opacity, factor)),
        ("prediction", _tint_enlarged(image, prediction, spec, opacity, factor)),
    ):
        header = np.full((_TEXT_HEIGHT_PX, picture.shape[1], 3), _PAPER, np.uint8)
        _write(header, title, 2, 0)
        panels.append(np.concatenate([header, picture]))
    gap = np.full((panels[0].shape[0], _PADDING_PX, 3), _PAPER, np.uint8)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)

    present = np.zeros(256, bool)
    present[truth] = present[prediction] = True
    shown = [i for i in range(spec.num_classes) if present[i]]
    names = [spec.classes[i] for i in shown]
    colours = [spec.colours[i] for i in shown]
    if (truth >= spec.num_classes).any():
        # Said in words, because a hatched swatch of this size would be noise.
        names, colours = [*names, "ignored: hatched"], [*colours, _PAPER]
    return np.concatenate([row, legend(names, colours, row.shape[1])])


def contact_sheet(
    cells: Sequence[tuple[str, np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    panel_size: tuple[int, int],
    is_present: Bool[np.ndarray, "256"],
    num_columns: int = 3,
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """Show many images, each beside its labels, with one legend below.

    Args:
        cells: Caption, RGB image and labels of each; image and labels of one size.
        spec: Classes and colours.
        panel_size: (height, width) in pixels that each image is fitted into.
        is_present: Whether the legend names an id.
        num_columns: Number of cells in a row.

    Returns:
        An RGB image.

    Raises:
        ValueError: The sizes of an image and its labels differ.
    """
    height, width = panel_size
    num_columns = min(num_columns, len(cells))
    num_rows = -(-len(cells) // num_columns)
    cell_height = height + _TEXT_HEIGHT_PX + _PADDING_PX
    cell_width = 2 * width + 3 * _PADDING_PX
    sheet_size = num_rows * cell_height, num_columns * cell_width
    sheet = np.full((*sheet_size, 3), _PAPER, np.uint8)
    for index, (caption, image, labels) in enumerate(cells):
        row, column = divmod(index, num_columns)
        top, left = row * cell_height, column * cell_width + _PADDING_PX
        while len(caption) > 1 and _text_width(caption) > 2 * width:
            caption = caption[1:]  # The end of a path says more.
        _write(sheet, caption, left, top)
        top += _TEXT_HEIGHT_PX
        factor = min(height / image.shape[0], width / image.shape[1])
        size = tuple(max(1, int(side * factor)) for side in image.shape[1::-1])
        shrunk = factor < 1
        photo = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_NEAREST
        )
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        tinted = overlay(photo, small, spec.colours, opacity=0.6)
        for picture, x in ((photo, left), (tinted, left + width + _PADDING_PX)):
            sheet[top : top + size[1], x : x + size[0]] = picture
    shown = [i for i in range(spec.num_classes) if is_present[i]]
    names = [spec.classes[i] for i in shown]
    colours = [spec.colours[i] for i in shown]
    if is_present[spec.num_classes :].any():
        names, colours = [*names, "no class: hatched"], [*colours, _PAPER]
    return np.concatenate([sheet, legend(names, colours, sheet.shape[1])])


def _tint_enlarged(
    image: Picture,
    labels: UInt8[np.ndarray, "height width"],
    spec: DatasetSpec,
    opacity: float,
    factor: int,
) -> UInt8[np.ndarray, "tall wide 3"]:
    return overlay(
        _enlarge(image, factor), _enlarge(labels, factor), spec.colours, opacity
    )


def _enlarge(picture: np.ndarray, factor: int) -> np.ndarray:
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, _FONT, 0.5, 1)[0][0]


def _write(picture: Picture, text: str, x: int, y: int) -> None:
    baseline = y + _TEXT_HEIGHT_PX - 7
    cv2.putText(picture, text, (x, baseline), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
