"""LoveDA: 7 classes of land cover.

In the official PNG the classes are 1..7 and 0 is no data; train ids start at 0.

Source: mmseg/datasets/loveda.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("background", (255, 255, 255)),
    ("building", (255, 0, 0)),
    ("road", (255, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (159, 129, 183)),
    ("forest", (0, 255, 0)),
    ("agricultural", (255, 195, 128)),
)

LOVEDA = DatasetSpec(
    name="loveda",
    homepage="https://zenodo.org/records/5706578",
    citation="Wang et al., LoveDA: A Remote Sensing Land-Cover Dataset for Domain "
    "Adaptive Semantic Segmentation, NeurIPS Datasets and Benchmarks 2021",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    photograph_size=(1024, 1024),
)
