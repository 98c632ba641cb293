"""Pascal Context: background and 59 classes.

Source: mmseg/datasets/pascal_context.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.ade20k import ADE20K
from segnext_jax.datasets.pascal_context_59 import PASCAL_CONTEXT_59
from segnext_jax.datasets.spec import DatasetSpec

PASCAL_CONTEXT_60 = DatasetSpec(
    name="pascal_context_60",
    classes=("background", *PASCAL_CONTEXT_59.classes),
    colours=ADE20K.colours[:60],
    photograph_size=(375, 500),
    official_ids=tuple(range(60)),
    homepage=PASCAL_CONTEXT_59.homepage,
    citation=PASCAL_CONTEXT_59.citation,
)
