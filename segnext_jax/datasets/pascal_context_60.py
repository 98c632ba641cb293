"""Pascal Context: background and 59 classes.

Source: mmseg/datasets/pascal_context.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.pascal_context_59 import PASCAL_CONTEXT_59
from segnext_jax.datasets.spec import DatasetSpec

PASCAL_CONTEXT_60 = DatasetSpec(
    name="pascal_context_60",
    homepage=PASCAL_CONTEXT_59.homepage,
    citation=PASCAL_CONTEXT_59.citation,
    classes=("background", *PASCAL_CONTEXT_59.classes),
    colours=((120, 120, 120), *PASCAL_CONTEXT_59.colours),
    photograph_size=(375, 500),
)
