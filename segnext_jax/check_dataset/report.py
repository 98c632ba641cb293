"""The report: a text for the terminal, JSON, and a sheet of overlays."""

import json
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from segnext_jax.check_dataset.finding import ERROR, Finding
from segnext_jax.check_dataset.inspection import Facts
from segnext_jax.check_dataset.summary import Summary, sizes_of
from segnext_jax.check_dataset.target import Target
from segnext_jax.cli.whole_files import whole_file
from segnext_jax.datasets import DatasetSpec
from segnext_jax.datasets.class_table import ClassTable
from segnext_jax.datasets.folder import DIVIDED
from segnext_jax.images import pictures
from segnext_jax.images.decode import decode_image

REPORT_FILE = "report.json"
_NUM_CELLS = 12
_PANEL_HEIGHT_PX = 200
_PANEL_WIDTH_PX = 280


def text(summary: Summary, findings: Sequence[Finding]) -> str:
    """Return the report for the terminal.

    Args:
      summary: What the data set holds.
      findings: What is wrong with it.
    """
    lines = [summary.target.name, *[""] * bool(summary.splits)]
    for name, split in summary.splits.items():
        lines.append(f"{name}: {split.num_images} images")
        formats = ", ".join(f"{n} {f}" for f, n in split.formats.most_common())
        lines.append(f"  formats  {formats or 'none can be read'}")
        for what, values in sizes_of(split).items():
            digits = 2 if what == "aspect" else 0
            shown = " / ".join(f"{value:.{digits}f}" for value in values)
            lines.append(f"  {what:7}  {shown}  (min / median / max)")
    if any(split.sizes for split in summary.splits.values()):
        mean, std = (
            ", ".join(f"{value:.1f}" for value in values)
            for values in (summary.mean, summary.std)
        )
        lines += ["", f"RGB mean ({mean}), standard deviation ({std})"]
    if summary.counts.any():
        lines += ["", *_class_table(summary)]
    lines.append("")
    lines += [f"found out: {remark}" for remark in summary.target.remarks]
    lines += [f"note: {DIVIDED}."] * summary.target.is_divided
    lines += [f"{finding.level}: {finding.text}" for finding in findings]
    if not findings:
        lines.append("Nothing is wrong that this program knows of.")
    if all(finding.level != ERROR for finding in findings):
        lines.append(f"Train: {summary.target.train_command}")
    return "\n".join(lines) + "\n"


def write(
    folder: pathlib.Path, summary: Summary, findings: Sequence[Finding]
) -> list[pathlib.Path]:
    """Write the JSON report and one contact sheet per split.

    Args:
      folder: Where to; made when missing.
      summary: What the data set holds.
      findings: What is wrong with it.
    """
    path = folder / REPORT_FILE
    content = summary.to_dict()
    content["findings"] = [
        {"level": f.level, "text": f.text, "names": list(f.names)} for f in findings
    ]
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2))
    paths = [path]
    for name in summary.splits:
        sheet = contact_sheet(summary, name)
        if sheet is not None:
            path = folder / f"contact_sheet_{name}.png"
            with whole_file(path) as partial:
                cv2.imwrite(str(partial), sheet[..., ::-1])
            paths.append(path)
    return paths


def contact_sheet(summary: Summary, split: str) -> np.ndarray | None:
    """Draw pairs of a split, evenly taken from its whole length.

    Args:
      summary: What the data set holds.
      split: Name of the split.

    Returns:
      An RGB image; None if no pair can be drawn.
    """
    target = summary.target
    usable = [
        (pair, fact)
        for pair, fact in zip(target.pairs, summary.facts, strict=True)
        if pair.split == split and fact.counts is not None and not fact.faults
    ]
    if not usable:
        return None
    spec = target.spec or _numbered(summary)
    chosen = np.unique(np.linspace(0, len(usable) - 1, _NUM_CELLS).round().astype(int))
    cells, present = [], np.zeros(256, bool)
    for index in chosen:
        pair, fact = usable[index]
        _, encoded, mask = pair.read()
        try:
            labels = target.masks.read(mask, fact.name)
        except ValueError:
            continue  # An id that id_map does not know; it is among the findings.
        image = decode_image(encoded, fact.name)
        present[np.unique(labels)] = True
        cells.append((_caption(fact), image, labels))
    if not cells:
        return None
    # Upright photographs fill upright panels.
    aspects = [image.shape[1] / image.shape[0] for _, image, _ in cells]
    panel_size = _PANEL_HEIGHT_PX, _PANEL_WIDTH_PX
    if np.median(aspects) < 1:
        panel_size = _PANEL_WIDTH_PX, _PANEL_HEIGHT_PX
    return pictures.contact_sheet(cells, spec, panel_size, present)


def _caption(fact: Facts) -> str:
    height, width = fact.size or (0, 0)
    return f"{fact.image_id}  {width}x{height}"


def _numbered(summary: Summary) -> DatasetSpec:
    """Return a data set whose classes are called by their ids."""
    count = int(np.flatnonzero(summary.counts[:255]).max(initial=0)) + 1
    return ClassTable(tuple(f"id {i}" for i in range(count))).spec("unnamed")


def _class_table(summary: Summary) -> list[str]:
    target: Target = summary.target
    spec = target.spec or _numbered(summary)
    names = list(summary.splits)
    width = max(map(len, (*spec.classes, "ignored")))
    columns = "".join(f"{name:>10}  {'images':>7}" for name in names)
    lines = [f" id  {'class':{width}}{columns}"]
    totals = [split.counts.sum() or 1 for split in summary.splits.values()]
    rows = [*enumerate(spec.classes), (255, "ignored")]
    strays = np.flatnonzero(summary.counts[:255])
    rows += [(int(i), "unknown id") for i in strays if i >= spec.num_classes]
    for index, name in rows:
        cells = "".join(
            f"{split.counts[index] / total:>10.3%}  {split.images[index]:>7}"
            for split, total in zip(summary.splits.values(), totals, strict=True)
        )
        lines.append(f"{index:>3}  {name:{width}}{cells}")
    return lines
