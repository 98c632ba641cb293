"""The images that a network gets most wrong, drawn with their errors."""

import heapq
import html
import pathlib
import re
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segnext_jax.cli.whole_files import whole_folder
from segnext_jax.evaluation.counting import LabelMap, count_image
from segnext_jax.evaluation.metrics import compute_metrics
from segnext_jax.images import pictures

FOLDER, INDEX_FILE = "worst", "index.html"


class WorstImages:
    """Keeps those with the largest share of labelled pixels that are wrong.

    The share is taken, not mIoU: of a single image, a few pixels of a class that is not
    there would decide mIoU.
    """

    def __init__(self, count: int, spec: Any):
        """Keep nothing yet.

        Args:
          count: How many images to keep.
          spec: Classes and colours.
        """
        self._count, self._spec = count, spec
        self._num_seen = 0
        # Share of wrong pixels; a number that decides between equal shares; the image.
        self._kept: list[tuple[float, int, tuple]] = []

    def add(
        self, name: str, image: np.ndarray, labels: LabelMap, prediction: LabelMap
    ) -> None:
        """Look at an image; an `evaluator.ExampleFn`."""
        is_labelled = labels != self._spec.ignore_label
        num_wrong = np.count_nonzero((labels != prediction) & is_labelled)
        share = num_wrong / max(np.count_nonzero(is_labelled), 1)
        self._num_seen += 1
        if len(self._kept) < self._count or share > self._kept[0][0]:
            # A copy: the batch need not stay.
            kept = (name, image.copy(), labels, prediction)
            heapq.heappush(self._kept, (share, -self._num_seen, kept))
            if len(self._kept) > self._count:
                heapq.heappop(self._kept)

    def write(self, folder: pathlib.Path) -> None:
        """Draw the images, the worst first, and a page that shows all of them."""
        figures = []
        with whole_folder(folder) as partial:
            for place, (share, _, image) in enumerate(self._ordered(), start=1):
                name, photograph, labels, prediction = image
                photograph = cv2.resize(photograph, labels.shape[::-1])
                picture = pictures.side_by_side(
                    photograph, labels, prediction, self._spec, has_errors=True
                )
                file = f"{place:02}_" + re.sub(r"[^\w.-]", "_", name) + ".png"
                Image.fromarray(picture).save(partial / file)
                metrics = compute_metrics(
                    count_image(
                        prediction,
                        labels,
                        num_classes=self._spec.num_classes,
                        ignore_label=self._spec.ignore_label,
                    )
                )
                text = (
                    f"{place}. {name}: {share:.1%} of the labelled pixels are wrong, "
                    f"mIoU {100 * metrics.mean_iou:.1f}"
                )
                figures.append(
                    f"<p>{html.escape(text)}<br>\n<img src='{file}' loading=lazy></p>"
                )
            page = _PAGE.format(len(figures), self._num_seen, "\n".join(figures))
            (partial / INDEX_FILE).write_text(page, encoding="utf-8")

    def _ordered(self) -> list[tuple[float, int, tuple]]:
        return sorted(self._kept, key=lambda one: one[:2], reverse=True)


_PAGE = """<!doctype html>
<meta charset=utf-8><title>worst images</title>
<style>:root{{color-scheme:light dark}}body{{font:16px system-ui}}img{{max-width:100%}}
</style>
<h1>The worst {} of {} images, by their share of wrong pixels</h1>
{}
"""
