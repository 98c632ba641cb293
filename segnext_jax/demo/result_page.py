"""The result of one image as HTML: image, overlay, legend, all in one string.

`result_page.js` brings it to life: the opacity slider, the name of the class beneath
the pointer, the legend's entries that show where their class is.
"""

import base64
import html
import json
import pathlib
from typing import Any

import cv2

from segnext_jax.datasets import DatasetSpec
from segnext_jax.images.label_png import encode_label_png
from segnext_jax.predict.files import encode_jpeg
from segnext_jax.predict.prediction import Prediction

# What a screen shows; more would only be sent.
_MAX_SIDE_PX = 1600
_FOLDER = pathlib.Path(__file__).parent


def script() -> str:
    """Return the script of the page."""
    return (_FOLDER / "result_page.js").read_text()


def style() -> str:
    """Return the style sheet of the page."""
    return (_FOLDER / "result_page.css").read_text()


def answer(predictor: Any, path: str | None) -> str:
    """Return what the page shows of an upload; never nothing, or the last would stay.

    Args:
      predictor: What `segnext_jax.load` returns.
      path: The upload; None: it was taken away.
    """
    if path is None:
        return ""
    try:
        return result_html(predictor.predict(path))
    except (ValueError, OSError) as fault:
        return fault_html(str(fault).replace(path, pathlib.Path(path).name))


def result_html(prediction: Prediction, opacity: float = 0.5) -> str:
    """Return the HTML of a prediction.

    Args:
      prediction: What the network has seen.
      opacity: Where the slider stands at first, in [0, 1].
    """
    image, labels, spec = prediction.image, prediction.labels, prediction.spec
    factor = min(1.0, _MAX_SIDE_PX / max(labels.shape))
    if factor < 1:
        size = [max(1, round(side * factor)) for side in labels.shape[::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    height, width = labels.shape
    areas = prediction.class_areas()
    first, share = next(iter(areas.items()))
    summary = html.escape(f"mostly {first}, {share:.0%}")
    return f"""<div class="segnext" data-classes="{_attribute(spec.classes)}">
<div class="segnext-stage" style="aspect-ratio: {width} / {height}">
<img class="segnext-photo" alt="the image" src="{_uri("jpeg", encode_jpeg(image))}">
<img class="segnext-tint" alt="its classes: {summary}" style="opacity: {opacity}"
 src="{_uri("png", encode_label_png(labels, spec.colours))}">
<canvas class="segnext-mark" width="{width}" height="{height}"></canvas>
<img class="segnext-ids" alt="" hidden src="{_uri("png", encode_label_png(labels))}">
<output class="segnext-name" aria-live="polite"></output>
</div>
<label class="segnext-slider">Opacity
<input type="range" min="0" max="1" step="0.01" value="{opacity}"></label>
<ul class="segnext-legend">
{_legend(areas, spec)}
</ul>
</div>"""


def fault_html(sentence: str) -> str:
    """Return the HTML of what is wrong with an image.

    Args:
      sentence: What the predictor says of it.
    """
    return f'<p class="segnext-fault" role="alert">{html.escape(sentence)}</p>'


def _legend(areas: dict[str, float], spec: DatasetSpec) -> str:
    lines = []
    for name, share in areas.items():
        number = spec.classes.index(name)
        red, green, blue = spec.colours[number]
        lines.append(
            f'<li><button type="button" data-id="{number}">'
            f'<span style="background: rgb({red} {green} {blue})"></span>'
            f"{html.escape(name)} <b>{html.escape(_percent(share))}</b></button></li>"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return "< 0.1%" if share < 0.0005 else f"{share:.1%}"


def _attribute(value: object) -> str:
    return html.escape(json.dumps(value))


def _uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
