"""What each data set is: classes, colours, splits, and where it lies once prepared."""

import difflib

from segnext_jax.datasets.ade20k import ADE20K
from segnext_jax.datasets.camvid import CAMVID
from segnext_jax.datasets.cityscapes import CITYSCAPES
from segnext_jax.datasets.coco_stuff import COCO_STUFF
from segnext_jax.datasets.isaid import ISAID
from segnext_jax.datasets.loveda import LOVEDA
from segnext_jax.datasets.pascal_context_59 import PASCAL_CONTEXT_59
from segnext_jax.datasets.pascal_context_60 import PASCAL_CONTEXT_60
from segnext_jax.datasets.prepared import default_data_dir, prepared_dir
from segnext_jax.datasets.shapes import SHAPES
from segnext_jax.datasets.spec import DatasetSpec
from segnext_jax.datasets.voc2012 import VOC2012

SPECS: dict[str, DatasetSpec] = {
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "coco_stuff": COCO_STUFF,
    "isaid": ISAID,
    "loveda": LOVEDA,
    "pascal_context_59": PASCAL_CONTEXT_59,
    "pascal_context_60": PASCAL_CONTEXT_60,
    "shapes": SHAPES,
    "voc2012": VOC2012,
}


def get_spec(name: str) -> DatasetSpec:
    """Return the description of a data set.

    Args:
      name: A key of `SPECS`.

    Raises:
      ValueError: If no data set has this name.
    """
    if name in SPECS:
        return SPECS[name]
    close = difflib.get_close_matches(name, SPECS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"unknown data set {name!r}.{hint} Known data sets: {', '.join(sorted(SPECS))}."
    )


__all__ = ["SPECS", "DatasetSpec", "default_data_dir", "get_spec", "prepared_dir"]
