"""The web page: its HTML, and what it does in a real browser."""

import base64
import html
import json
import re
import shutil
import sys

import cv2
import numpy as np
import pytest

from segnext_jax.datasets import DatasetSpec
from segnext_jax.demo.__main__ import serve
from segnext_jax.demo.result_page import fault_html, result_html, script, style
from segnext_jax.predict.prediction import Prediction
from segnext_jax.predict.predictor import read_image

SPEC = DatasetSpec(
    "tiny",
    ("road & kerb", 'the "sky"', "tree"),
    ((90, 0, 90), (0, 90, 250), (0, 99, 0)),
)


def predicted(height=60, width=100):
    """Three columns of classes; the last is a quarter."""
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 4 : width // 2] = 2
    labels[:, width // 2 :] = 1
    image = np.full((height, width, 3), 128, np.uint8)
    return Prediction(image, labels, SPEC, lambda: np.zeros(0))


def decoded(text, css_class):
    (tag,) = re.findall(rf'<img class="{css_class}"[^>]*>', text)
    data = re.search(r"base64,([^\"]*)", tag).group(1)
    array = np.frombuffer(base64.b64decode(data), np.uint8)
    return cv2.imdecode(array, cv2.IMREAD_COLOR_RGB)


def test_html_holds_image_colours_ids_and_shares():
    prediction = predicted()
    text = result_html(prediction, opacity=0.3)
    assert np.abs(decoded(text, "segnext-photo").astype(int) - 128).max() <= 1
    colours = np.array(SPEC.colours)[prediction.labels]
    np.testing.assert_array_equal(decoded(text, "segnext-tint"), colours)
    ids = decoded(text, "segnext-ids")
    np.testing.assert_array_equal(ids[..., 0], prediction.labels)
    classes = re.search('data-classes="([^"]*)"', text).group(1)
    assert json.loads(html.unescape(classes)) == list(SPEC.classes)
    entries = re.findall(r'data-id="(\d)">.*?</span>(.*?) <b>(.*?)</b>', text)
    assert [(int(n), html.unescape(name), share) for n, name, share in entries] == [
        (1, 'the "sky"', "50.0%"),
        (0, "road & kerb", "25.0%"),
        (2, "tree", "25.0%"),
    ]


def test_large_images_are_reduced_to_what_a_screen_shows():
    text = result_html(predicted(1000, 4000))
    assert decoded(text, "segnext-ids").shape == (400, 1600, 3)
    assert decoded(text, "segnext-photo").shape == (400, 1600, 3)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window; none is downloaded."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright (pip install playwright)"
    )
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium on the PATH (apt-get install chromium)")
    arguments = [
        *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
    ]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


def check_result(page):
    """Try with the mouse and the keyboard what a person would."""
    stage = page.locator(".segnext-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    y = box["y"] + box["height"] / 2
    for share, name in ((0.1, "road & kerb"), (0.4, "tree"), (0.8, 'the "sky"')):
        page.mouse.move(box["x"] + share * box["width"], y)
        assert page.locator(".segnext-name").text_content() == name
    page.locator(".segnext-slider").hover()
    assert page.locator(".segnext-name").text_content() == ""

    slider = page.locator(".segnext-slider input")
    slider.focus()
    page.keyboard.press("End")
    opacity = "getComputedStyle(document.querySelector('.segnext-tint')).opacity"
    assert page.evaluate(opacity) == "1"
    page.keyboard.press("Home")
    assert page.evaluate(opacity) == "0"

    # What is not tree is darkened while the legend's entry has the focus.
    marked = """() => {
      const canvas = document.querySelector(".segnext-mark");
      const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, 1).data;
      return Array.from({length: canvas.width}, (_, x) => all[4 * x + 3]);
    }"""
    for _ in range(3):
        page.keyboard.press("Tab")
    width = len(page.evaluate(marked))
    row = np.array(page.evaluate(marked)) > 0
    expected = np.ones(width, bool)
    expected[width // 4 : width // 2] = False
    np.testing.assert_array_equal(row, expected)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert not np.any(page.evaluate(marked))


@pytest.mark.parametrize("width_px", [1280, 360], ids=["desk", "phone"])
def test_result_works_by_mouse_keyboard_and_on_a_phone(browser, width_px):
    page = browser.new_page(viewport={"width": width_px, "height": 800})
    faults = []
    page.on("pageerror", lambda fault: faults.append(fault))
    page.set_content(
        '<meta name="viewport" content="width=device-width">'
        f"<style>{style()}</style><script>{script()}</script>"
        f'<div id="place"></div>'
    )
    # As Gradio does it: after the script has run.
    page.evaluate(
        "text => { document.querySelector('#place').innerHTML = text }",
        result_html(predicted()),
    )
    page.wait_for_function("document.querySelector('.segnext-ids').naturalWidth > 0")
    check_result(page)
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(overflow) <= 0
    assert not faults
    page.close()


class Columns:
    """Stands in for a network: sees three columns in whatever it is shown."""

    spec = SPEC

    def predict(self, image):
        height, width = read_image(image).shape[:2]
        return predicted(height, width)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'segnext_jax\[demo\]'"):
        serve(Columns(), "127.0.0.1", None)


@pytest.mark.slow
def test_page_takes_a_file_and_shows_it(browser, tmp_path):
    pytest.importorskip("gradio", reason="needs gradio (pip install segnext_jax[demo])")
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((60, 100, 3), 128, np.uint8))
    served = serve(Columns(), "127.0.0.1", None, block=False)
    try:
        page = browser.new_page(viewport={"width": 360, "height": 800})
        # Gradio's fonts are elsewhere.
        page.route(
            lambda url: "127.0.0.1" not in url and not url.startswith("data:"),
            lambda route: route.abort(),
        )
        page.goto(served.local_url)
        choosers = []
        page.on("filechooser", lambda chooser: choosers.append(chooser))
        field = page.get_by_label("Drop an image file here to upload")
        for _ in range(40):  # Until Gradio listens to the field.
            field.press("Enter")
            page.wait_for_timeout(250)
            if choosers:
                break
        choosers[0].set_files(str(path))
        page.wait_for_selector(".segnext-legend", timeout=30_000)
        page.wait_for_function(
            "document.querySelector('.segnext-ids').naturalWidth > 0"
        )
        check_result(page)
        overflow = "document.documentElement.scrollWidth - window.innerWidth"
        assert page.evaluate(overflow) <= 0
    finally:
        served.close()


# Gradio counts its calls with what pandas deprecates.
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_uploads_are_bounded_damaged_ones_told_and_old_answers_gone(tmp_path):
    pytest.importorskip("gradio", reason="needs gradio (pip install segnext_jax[demo])")
    import gradio_client
    import httpx

    whole, cut, large = (tmp_path / name for name in ("a.png", "b <i>.png", "c.png"))
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    cv2.imwrite(str(whole), noise)
    cut.write_bytes(whole.read_bytes()[:5000])
    cv2.imwrite(str(large), np.resize(noise, (600, 700, 3)))
    served = serve(Columns(), "127.0.0.1", None, max_upload_mb=1, block=False)
    try:
        client = gradio_client.Client(served.local_url, verbose=False)

        def answer(path):
            file = gradio_client.handle_file(str(path))
            return client.predict(file, api_name="/show")

        assert "segnext-legend" in answer(whole)
        text = answer(cut)
        assert "segnext-legend" not in text
        assert "cannot be decoded as an image: it is truncated, 5000 bytes" in text
        assert str(tmp_path) not in text and "gradio" not in text
        sent = {"files": large.read_bytes()}
        refused = httpx.post(f"{served.local_url}gradio_api/upload", files=sent)
        assert refused.status_code == 413
        with pytest.raises(ValueError, match=r"--port=\d+ must be free"):
            serve(Columns(), "127.0.0.1", served.server_port, block=False)
        assert served.delete_cache == (300, 900)
    finally:
        served.close()


def test_a_fault_is_text_and_no_markup():
    text = fault_html("a <b>.png: cannot be decoded")
    assert "a &lt;b&gt;.png: cannot be decoded" in text and "segnext-legend" not in text
