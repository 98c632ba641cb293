"""Pictures for people: colours of labels, overlays, legends, comparisons, confusion."""

import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8

from segnext_jax.datasets.spec import Colour, DatasetSpec

Picture = UInt8[np.ndarray, "height width 3"]

_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_WRONG = (255, 60, 40)
_TEXT_HEIGHT_PX = 22
# OpenCV 5 has letters of most scripts, whatever the name of the font.
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Scale of OpenCV's font for a line of text one pixel high.
_TEXT_SCALE = 0.5 / 22
# Legends of pictures that are wider have larger text: it is read on a screen.
_SMALL_TEXT_WIDTH_PX = 1800
_PADDING_PX = 8
_HATCH_PERIOD_PX = 8
_HATCH_FINE_PX = 800
_MIN_PANEL_HEIGHT_PX = 240
_MAX_ENLARGED_WIDTH_PX = 2048
# Confusion matrix: colour of share 1 (lower shares are blended with the paper), size of
# cells that hold a number, and of cells of a matrix that is too large for numbers.
_FULL = np.array([8, 48, 107])
_GRID, _CROSSED = (222, 222, 222), (150, 150, 150)
_MARGIN_PX = 12
_NUMBERED_CELL_PX, _PLAIN_CELL_PX = 38, 15
_MAX_NUMBERED_CLASSES = 40


def colour_labels(
    labels: UInt8[np.ndarray, "height width"], colours: Sequence[Colour]
) -> Picture:
    """Give each class its colour.

    Args:
      labels: One id per pixel.
      colours: (red, green, blue) of each class; any other id becomes black.
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
    """Tint an image by its labels; ignored pixels are hatched instead.

    Args:
      image: An RGB image.
      labels: One id per pixel, of the image's size.
      colours: (red, green, blue) of each class.
      opacity: Weight of the class colour in [0, 1].

    Raises:
      ValueError: If the sizes differ, or the opacity is outside [0, 1].
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
    is_ignored = labels >= len(colours)
    if not is_ignored.any():
        return tinted
    return np.where(is_ignored[..., None], _hatch(image), tinted)


def legend(
    classes: Sequence[str], colours: Sequence[Colour | None], width: int
) -> Picture:
    """Draw a swatch and a name for each class, in as many rows as it takes.

    Args:
      classes: Names.
      colours: (red, green, blue) of each; None: hatched, for ignored pixels.
      width: Width of the picture; a name that is longer is cut off.

    Returns:
      An RGB image of that width.
    """
    line = _TEXT_HEIGHT_PX * max(1, round(width / _SMALL_TEXT_WIDTH_PX))
    padding, swatch = line // 3, line
    cell = padding + swatch + padding
    cell += max((_text_width(name, line) for name in classes), default=0) + padding
    num_columns = max(1, min(width // cell, len(classes)))
    num_rows = -(-len(classes) // num_columns)
    picture = np.full((num_rows * line + 2 * padding, width, 3), _PAPER, np.uint8)
    for index, (name, colour) in enumerate(zip(classes, colours, strict=True)):
        # Column by column, as a list is read.
        column, row = divmod(index, num_rows)
        x = column * cell + padding
        y = row * line + padding
        inside = picture[y + line // 8 : y + line - line // 8, x : x + swatch]
        inside[:] = _hatch(np.full_like(inside, 128)) if colour is None else colour
        corners = (x, y + line // 8), (x + swatch - 1, y + line - line // 8 - 1)
        cv2.rectangle(picture, *corners, _INK, 1)
        _write(picture, name, x + swatch + padding, y, line)
    return picture


def side_by_side(
    image: Picture,
    truth: UInt8[np.ndarray, "height width"] | None,
    prediction: UInt8[np.ndarray, "height width"],
    spec: DatasetSpec,
    opacity: float = 0.6,
    all_classes: bool = False,
    has_errors: bool = False,
) -> UInt8[np.ndarray, "picture_height picture_width 3"]:
    """Show image, truth and prediction next to each other, with a legend below.

    Small images are enlarged so that the text can be read. The legend names only the
    classes that truth or prediction hold; without a truth, with their shares.

    Args:
      image: An RGB image.
      truth: One id per pixel; None: not known, and no panel.
      prediction: One id per pixel.
      spec: Classes and colours.
      opacity: Weight of the class colours in [0, 1].
      all_classes: Whether the legend names every class, which gives the pictures of
        all images of one size one size.
      has_errors: Whether a further panel shows wrong pixels red; it needs a truth.

    Raises:
      ValueError: If the sizes differ, or the opacity is outside [0, 1].
    """
    height, width = image.shape[:2]
    # No panorama is made wider for the sake of its height.
    factor = min(-(-_MIN_PANEL_HEIGHT_PX // height), _MAX_ENLARGED_WIDTH_PX // width)
    factor = max(1, factor)
    panels = [("image", _enlarge(image, factor))]
    # Enlarged before the overlay: the hatching keeps its width.
    if truth is not None:
        panels.append(("truth", _tint_enlarged(image, truth, spec, opacity, factor)))
    tinted = _tint_enlarged(image, prediction, spec, opacity, factor)
    panels.append(("prediction", tinted))
    if truth is not None and has_errors:
        panels.append(("errors", _errors(panels[0][1], truth, prediction, spec)))

    height, width = panels[0][1].shape[:2]
    line = _TEXT_HEIGHT_PX * max(1, round(width * len(panels) / _SMALL_TEXT_WIDTH_PX))
    row_width = len(panels) * (width + _PADDING_PX) - _PADDING_PX
    row = np.full((line + height, row_width, 3), _PAPER, np.uint8)
    for number, (title, picture) in enumerate(panels):
        left = number * (width + _PADDING_PX)
        _write(row, title, left + 2, 0, line)
        row[line:, left : left + width] = picture

    counts = np.bincount(prediction.reshape(-1), minlength=256)
    present = counts > 0
    if truth is not None:
        present[truth] = True
    shown = [i for i in range(spec.num_classes) if present[i] or all_classes]
    names = [spec.classes[i] for i in shown]
    if truth is None and not all_classes:
        shown.sort(key=lambda i: -counts[i])
        names = [f"{spec.classes[i]} {counts[i] / counts.sum():.1%}" for i in shown]
    colours: list[Colour | None] = [spec.colours[i] for i in shown]
    if present[spec.num_classes :].any():
        names, colours = [*names, "ignored"], [*colours, None]
    return np.concatenate([row, legend(names, colours, row.shape[1])])


def check_path(path: pathlib.Path) -> None:
    """Refuse what a picture cannot be written to, before the work for it.

    Raises:
      ValueError: If the name has no suffix of a picture.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(
            f"--output must name a picture, .png, .jpg or .webp: got {path}. Use "
            f"{path.with_name(path.name + '.png')}."
        )


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

    Raises:
      ValueError: If the sizes of an image and its labels differ.
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
        shown = caption
        while len(caption) > 1 and _text_width(shown) > 2 * width:
            caption = caption[1:]  # The end of a path says more.
            shown = f"...{caption}"
        _write(sheet, shown, left, top)
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
    present = [i for i in range(spec.num_classes) if is_present[i]]
    names = [spec.classes[i] for i in present]
    colours: list[Colour | None] = [spec.colours[i] for i in present]
    if is_present[spec.num_classes :].any():
        names, colours = [*names, "ignored"], [*colours, None]
    return np.concatenate([sheet, legend(names, colours, sheet.shape[1])])


def draw_confusion(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw which share of each label's pixels was predicted as which class.

    Rows are labels and sum to 100 %, columns are predictions. Small shares are shown
    stronger than in proportion (by their square root). Up to 40 classes, each cell of
    half a percent or more holds its percentage; the row of a class without labels is
    crossed out.

    Args:
      confusion: Pixel counts [label, prediction].
      classes: Names.
    """
    count = len(classes)
    is_numbered = count <= _MAX_NUMBERED_CLASSES
    cell = _NUMBERED_CELL_PX if is_numbered else _PLAIN_CELL_PX
    line = 20 if is_numbered else _PLAIN_CELL_PX
    labelled = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(labelled, 1)
    titles = ["rows: label, columns: prediction", "percent of the label's pixels"]
    text_width = max(_text_width(name, line) for name in classes)
    left = text_width + 2 * _MARGIN_PX
    top = text_width + 2 * _MARGIN_PX
    width = left + count * cell + _MARGIN_PX
    width = max(width, _MARGIN_PX * 2 + max(_text_width(t) for t in titles))
    header = _TEXT_HEIGHT_PX * len(titles)
    picture = np.full((header + top + count * cell + _MARGIN_PX, width, 3), 255)
    picture = picture.astype(np.uint8)
    for number, title in enumerate(titles):
        _write(picture, title, _MARGIN_PX, _TEXT_HEIGHT_PX * number + 4)
    top += header

    strength = np.sqrt(shares)[..., None]
    colours = np.rint(255 * (1 - strength) + _FULL * strength).astype(np.uint8)
    body = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    picture[top : top + count * cell, left : left + count * cell] = body
    end = left + count * cell, top + count * cell
    for index in range(count + 1):
        x, y = left + index * cell, top + index * cell
        cv2.line(picture, (x, top), (x, end[1]), _GRID, 1)
        cv2.line(picture, (left, y), (end[0], y), _GRID, 1)
    for index, name in enumerate(classes):
        inset = (cell - line) // 2
        start = left - 8 - _text_width(name, line)
        _write(picture, name, start, top + index * cell + inset, line)
        strip = np.full((cell, text_width + 2, 3), 255, np.uint8)
        _write(strip, name, 1, inset, line)
        turned = cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)
        above = slice(top - 8 - turned.shape[0], top - 8)
        picture[above, left + index * cell : left + (index + 1) * cell] = turned
        if not labelled[index]:
            y = top + index * cell + cell // 2
            cv2.line(picture, (left, y), (end[0], y), _CROSSED, 1)
    if is_numbered:
        _write_numbers(picture, shares, (left, top), cell)
    return picture


def _write_numbers(
    picture: UInt8[np.ndarray, "height width 3"],
    shares: np.ndarray,
    origin: tuple[int, int],
    cell: int,
) -> None:
    line = 18
    for row, column in np.argwhere(shares >= 0.005).tolist():
        text = f"{100 * shares[row, column]:.0f}"
        x = origin[0] + column * cell + (cell - _text_width(text, line)) // 2
        y = origin[1] + row * cell + (cell - line) // 2
        is_dark = shares[row, column] > 0.2
        _write(picture, text, x, y, line, _PAPER if is_dark else _INK)


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


def _errors(
    image: UInt8[np.ndarray, "tall wide 3"],
    truth: UInt8[np.ndarray, "height width"],
    prediction: UInt8[np.ndarray, "height width"],
    spec: DatasetSpec,
) -> UInt8[np.ndarray, "tall wide 3"]:
    """Show the image dark and grey, wrong pixels red, ignored ones hatched."""
    wrong = np.where(truth < spec.num_classes, truth != prediction, 255)
    factor = image.shape[0] // truth.shape[0]
    dark = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2
    grey = dark[..., None].repeat(3, axis=2)
    labels = _enlarge(wrong.astype(np.uint8), factor)
    red = overlay(grey, labels, ((0, 0, 0), _WRONG), 0.8)
    return np.where((labels == 0)[..., None], grey, red)


def _enlarge(picture: np.ndarray, factor: int) -> np.ndarray:
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _hatch(image: Picture) -> Picture:
    """Draw lines from the upper right to the lower left: light, with a dark border.

    Lines with both tones are seen on snow and at night. Lines are wider on larger
    images, which people look at from further away.
    """
    width = max(1, round(max(image.shape[:2]) / _HATCH_FINE_PX))
    y, x = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])
    phase = ((x + y) % (width * _HATCH_PERIOD_PX) // width)[..., None]
    dark = image // 2
    return np.where(phase == 0, dark + np.uint8(128), np.where(phase == 1, dark, image))


def _text_width(text: str, line: int = _TEXT_HEIGHT_PX) -> int:
    return cv2.getTextSize(text, _FONT, _TEXT_SCALE * line, 1)[0][0]


def _write(
    picture: Picture,
    text: str,
    x: int,
    y: int,
    line: int = _TEXT_HEIGHT_PX,
    colour: Colour = _INK,
) -> None:
    """Write a line of text of which (x, y) is the upper left corner, in place."""
    baseline = x, y + round(0.71 * line)
    scale = _TEXT_SCALE * line
    cv2.putText(picture, text, baseline, _FONT, scale, colour, 1, cv2.LINE_AA)
