"""Charts of curves, as SVG for pages and as pictures: one layout for both."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from segnext_jax.datasets.spec import Colour

# Told apart on white and on black, and by eyes that see few colours.
# Source: Okabe and Ito, "Color universal design", 2008, without black and yellow.
_COLOURS: tuple[Colour, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (128, 128, 128)),
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 24, 28, 26
_TEXT_PX = 12
_INK, _GRID = (40, 40, 40), (225, 225, 225)


class Chart(NamedTuple):
    """Curves over one axis.

    Attributes:
      title: What the values are.
      curves: Points (x, y) of each curve by its number, which gives its colour.
      has_log_x: Whether equal distances along the axis are equal ratios.
      marked: Place on the axis that is marked; None: none.
    """

    title: str
    curves: Mapping[int, Sequence[tuple[float, float]]]
    has_log_x: bool = False
    marked: float | None = None


class _Line(NamedTuple):
    points: list[tuple[float, float]]
    curve: int | None = None


class _Text(NamedTuple):
    x: float
    y: float
    text: str
    # Share of the text's width that lies left of x.
    anchor: float = 0.0


def colours(count: int) -> list[str]:
    """Return the colours of the first curves, as SVG and CSS write them."""
    return ["#{:02x}{:02x}{:02x}".format(*_colour(number)) for number in range(count)]


def _colour(number: int) -> Colour:
    return _COLOURS[number % len(_COLOURS)]


def svg(chart: Chart, size: tuple[int, int] = (230, 400)) -> str:
    """Return a chart as SVG, whose text has the colour of the page's.

    Args:
      chart: What to draw.
      size: (height, width) in pixels.
    """
    height, width = size
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    stroke = colours(1 + max(chart.curves, default=0))
    for shape in _layout(chart, size):
        if isinstance(shape, _Text):
            anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[shape.anchor]
            parts.append(
                f'<text x="{shape.x:.0f}" y="{shape.y:.0f}" text-anchor="{anchor}">'
                f"{html.escape(shape.text)}</text>"
            )
            continue
        kind = 'class="grid"'
        if shape.curve is not None:
            kind = f'stroke="{stroke[shape.curve]}"'
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        parts.append(f'<polyline points="{points}" fill="none" {kind}/>')
    return "\n".join([*parts, "</svg>"])


def draw(
    charts: Sequence[Chart],
    names: Sequence[str] = (),
    num_columns: int = 3,
    size: tuple[int, int] = (230, 400),
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw charts in rows below the names of their curves.

    Args:
      charts: What to draw.
      names: Of the curves, by number; empty: no legend.
      num_columns: Charts in a row.
      size: (height, width) of each, in pixels.

    Returns:
      An RGB image.
    """
    height, width = size
    num_columns = min(num_columns, len(charts))
    num_rows = -(-len(charts) // num_columns)
    top = 20 * len(names) + 8 * bool(names)
    shape = (top + num_rows * height, num_columns * width, 3)
    picture = np.full(shape, 255, np.uint8)
    for number, name in enumerate(names):
        middle = 20 * number + 14
        cv2.line(picture, (12, middle), (36, middle), _colour(number), 2, cv2.LINE_AA)
        _write(picture, _Text(44, middle + 4, name))
    for place, chart in enumerate(charts):
        row, column = divmod(place, num_columns)
        y = top + row * height
        panel = picture[y : y + height, column * width : (column + 1) * width]
        for shape in _layout(chart, size):
            if isinstance(shape, _Text):
                _write(panel, shape)
                continue
            colour = _GRID if shape.curve is None else _colour(shape.curve)
            # Sixteenths of a pixel.
            points = np.rint(16 * np.array(shape.points)).astype(np.int32)
            cv2.polylines(panel, [points], False, colour, 1, cv2.LINE_AA, 4)
    return picture


def _write(picture: UInt8[np.ndarray, "height width 3"], shape: _Text) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, _TEXT_PX / 30
    width = cv2.getTextSize(shape.text, font, scale, 1)[0][0]
    place = round(shape.x - shape.anchor * width), round(shape.y)
    cv2.putText(picture, shape.text, place, font, scale, _INK, 1, cv2.LINE_AA)


def _layout(chart: Chart, size: tuple[int, int]) -> list[_Line | _Text]:
    """Return lines and texts at their places, (0, 0) the upper left corner."""
    height, width = size
    points = [point for curve in chart.curves.values() for point in curve]
    shapes: list[_Line | _Text] = [_Text(_LEFT, 16, chart.title)]
    if not points:
        return [*shapes, _Text(width / 2, height / 2, "no values", 0.5)]
    across: Callable[[float], float] = math.log10 if chart.has_log_x else float
    xs, ys = ([point[axis] for point in points] for axis in (0, 1))
    left, right = _range(across(min(xs)), across(max(xs)))
    low, high = _range(min(ys), max(ys))

    def x_of(value):
        share = (across(value) - left) / (right - left)
        return _LEFT + share * (width - _LEFT - _RIGHT)

    def y_of(value):
        return (
            height - _BOTTOM - (value - low) / (high - low) * (height - _TOP - _BOTTOM)
        )

    for tick in _ticks(low, high):
        y = y_of(tick)
        shapes.append(_Line([(_LEFT, y), (width - _RIGHT, y)]))
        shapes.append(_Text(_LEFT - 6, y + 4, f"{tick:.4g}", 1.0))
    for tick in _ticks(left, right):
        x = x_of(10**tick if chart.has_log_x else tick)
        shapes.append(_Line([(x, _TOP), (x, height - _BOTTOM)]))
        text = f"{10**tick:.2g}" if chart.has_log_x else f"{tick:,.10g}"
        shapes.append(_Text(x, height - 8, text, 0.5))
    for number, curve in chart.curves.items():
        shapes.append(_Line([(x_of(x), y_of(y)) for x, y in curve], number))
    if chart.marked is not None:
        x = x_of(chart.marked)
        shapes.append(_Line([(x, _TOP), (x, height - _BOTTOM)], 0))
        shapes.append(_Text(x + 4, _TOP + 12, f"{chart.marked:.2g}"))
    return shapes


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers in a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((k * power for k in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [k * step for k in range(first, last + 1)]
