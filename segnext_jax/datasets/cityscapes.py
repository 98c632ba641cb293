"""Cityscapes: the 19 evaluated classes.

Source: cityscapesscripts/helpers/labels.py (rows with a trainId), 1024x2048 images;
mmseg/datasets/cityscapes.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, id in *_labelIds.png, (red, green, blue).
_TABLE = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)

_IDS = tuple(official for _, official, _ in _TABLE)

CITYSCAPES = DatasetSpec(
    name="cityscapes",
    classes=tuple(name for name, _, _ in _TABLE),
    colours=tuple(colour for _, _, colour in _TABLE),
    official_ids=_IDS,
    # The ids of 0..33 that are not evaluated, and the licence plate: -1, 255 in a byte.
    ignored_ids=tuple(i for i in (*range(34), 255) if i not in _IDS),
    photograph_size=(1024, 2048),
    homepage="https://www.cityscapes-dataset.com",
    citation="Cordts et al., The Cityscapes Dataset for Semantic Urban Scene "
    "Understanding, CVPR 2016",
)
