"""Curves at their places, with ticks that are round."""

import re

import numpy as np
import pytest

from segnext_jax.images.charts import Chart, colours, draw, svg


def lines_of(text: str) -> list[np.ndarray]:
    found = re.findall(r'points="([^"]*)" fill="none" stroke', text)
    return [
        np.array([tuple(map(float, p.split(","))) for p in one.split()])
        for one in found
    ]


def test_a_curve_fills_its_frame_and_ticks_are_round():
    chart = Chart("a < b", {1: [(0, 2.0), (50, 4.0), (100, 3.0)]})
    text = svg(chart, (230, 400))
    assert "a &lt; b" in text and colours(2)[1] in text
    (line,) = lines_of(text)
    np.testing.assert_allclose(line[:, 0], [54, 215, 376], atol=0.1)
    np.testing.assert_allclose(line[:, 1], [204, 28, 116], atol=0.1)
    assert [t for t in re.findall(r">([\d.]+)</text>", text)] == [
        *("2", "2.5", "3", "3.5", "4"),
        *("0", "20", "40", "60", "80", "100"),
    ]


def test_equal_ratios_are_equal_distances_and_the_mark_is_drawn():
    points = [(1e-4, 1.0), (1e-3, 2.0), (1e-2, 0.0)]
    curve, mark = lines_of(svg(Chart("loss", {0: points}, True, 1e-3)))
    np.testing.assert_allclose(np.diff(curve[:, 0]), 161, atol=0.2)
    np.testing.assert_allclose(mark[:, 0], curve[1, 0], atol=0.1)


@pytest.mark.parametrize("points", [[], [(3, 0.5)], [(3, 0.5), (4, 0.5)]])
def test_few_points_are_drawn_too(points):
    chart = Chart("flat", {0: points})
    picture = draw([chart, chart], ["run"], size=(200, 300))
    assert picture.shape == (28 + 200, 600, 3)
    np.testing.assert_array_equal(picture[28:, :300], picture[28:, 300:])
    assert (picture[28:] < 200).any()
    assert ("no values" in svg(chart)) == (not points)
