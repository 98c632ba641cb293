"""The model card of a published network: what it is, how good, how it is used."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from segnext_jax.checkpoints.reading import StoredModel
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.weights.shared_folder import PICTURE_FILE, WEIGHTS_FILE

_HEAD = """\
---
library_name: segnext_jax
pipeline_tag: image-segmentation
license: {licence}
tags: [segnext, semantic-segmentation, jax, flax]
{index}---
# {title}
{picture}
{what}

```python
import segnext_jax  # pip install 'segnext_jax[hub]'

model = segnext_jax.load({address})
model.predict("photo.jpg").overlay().show()
```

## Results
{results}

## Files
`{weights}` holds the weights under the names of the official PyTorch code.
SHA-256: `{sha256}`
"""
_INDEX = """\
model-index:
- name: {name}
  results:
  - task: {{type: image-segmentation}}
    dataset: {{name: {dataset}, type: {dataset}}}
    metrics: [{{type: mean_iou, value: {percent:.2f}}}]
"""
_MEANS = ("mIoU", "mAcc", "aAcc")


def card(
    stored: StoredModel,
    config: ConfigDict,
    name: str,
    sha256: str,
    *,
    licence: str,
    evaluation: Mapping[str, Any],
    has_picture: bool,
) -> str:
    """Return the text of the card.

    Args:
      stored: The network.
      config: Its configuration, as it is published.
      name: ``hf://user/name``, or the folder's name.
      sha256: The SHA-256 of the weights' file.
      licence: The licence of the weights, as the hub abbreviates it.
      evaluation: Content of ``evaluation.json`` of these weights; empty: none.
      has_picture: Whether there is a picture.
    """
    dataset = str(config.data.folder or config.data.name)
    variant = str(config.model.variant)
    title = f"SegNeXt {variant}, {dataset}"
    miou = evaluation.get("mIoU", stored.score)
    index = ""
    if miou is not None and config.task == "segmentation":
        index = _INDEX.format(
            name=json.dumps(title), dataset=json.dumps(dataset), percent=100 * miou
        )
    trained = "" if stored.step is None else f" Trained for {stored.step:,} steps."
    height, width = config.data.crop_size
    return _HEAD.format(
        licence=licence,
        index=index,
        title=title,
        picture=f"\n![what it sees]({PICTURE_FILE})\n" if has_picture else "",
        what=f"SegNeXt (Guo et al., NeurIPS 2022) {variant}, {config.task}, crops of "
        f"{height}x{width}.{trained}",
        address=json.dumps(name),
        results=_results(config, evaluation, miou),
        weights=WEIGHTS_FILE,
        sha256=sha256,
    )


def _results(config: ConfigDict, evaluation: Mapping[str, Any], miou: Any) -> str:
    """Return the numbers that there are, and the classes."""
    if config.task != "segmentation":
        return f"{len(config.data.classes)} classes: {', '.join(config.data.classes)}"
    classes = resolve_spec(config.data).classes
    if "IoU" not in evaluation:
        score = "Not evaluated." if miou is None else f"mIoU {100 * miou:.2f}."
        return f"{score}\n\n{len(classes)} classes: {', '.join(classes)}"
    means = ", ".join(f"{key} {_percent(evaluation[key])}" for key in _MEANS)
    options = config.evaluation
    scale = "x".join(map(str, options.scale)) if options.scale else "their own size"
    rows = [
        f"| {_cell(name)} | {_percent(evaluation['IoU'][name])} | "
        f"{_percent(evaluation['Acc'][name])} |"
        for name in classes
    ]
    return "\n".join(
        [
            f"{means} (validation split, images at {scale}, {options.mode}, flip "
            f"{options.flip}, ratios {list(options.ratios)}).",
            "",
            "| class | IoU | Acc |",
            "|---|---|---|",
            *rows,
        ]
    )


def _cell(name: str) -> str:
    return name.replace("|", "\\|")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
