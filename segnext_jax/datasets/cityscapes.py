"""Cityscapes: the 19 evaluated classes.

Source: cityscapesscripts/helpers/labels.py (rows with a trainId), 1024x2048 images;
mmseg/datasets/cityscapes.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

CITYSCAPES = DatasetSpec(
    name="cityscapes",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    photograph_size=(1024, 2048),
    homepage="https://www.cityscapes-dataset.com",
    citation="Cordts et al., The Cityscapes Dataset for Semantic Urban Scene "
    "Understanding, CVPR 2016",
)
