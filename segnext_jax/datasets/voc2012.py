"""Pascal VOC 2012: background and 20 classes.

The colours are the VOC bit colour map. Training reads `trainaug`, the official
train split joined with SBD's annotations.

Source: VOC2012 development kit; mmseg/datasets/voc.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("background", (0, 0, 0)),
    ("aeroplane", (128, 0, 0)),
    ("bicycle", (0, 128, 0)),
    ("bird", (128, 128, 0)),
    ("boat", (0, 0, 128)),
    ("bottle", (128, 0, 128)),
    ("bus", (0, 128, 128)),
    ("car", (128, 128, 128)),
    ("cat", (64, 0, 0)),
    ("chair", (192, 0, 0)),
    ("cow", (64, 128, 0)),
    ("diningtable", (192, 128, 0)),
    ("dog", (64, 0, 128)),
    ("horse", (192, 0, 128)),
    ("motorbike", (64, 128, 128)),
    ("person", (192, 128, 128)),
    ("pottedplant", (0, 64, 0)),
    ("sheep", (128, 64, 0)),
    ("sofa", (0, 192, 0)),
    ("train", (128, 192, 0)),
    ("tvmonitor", (0, 64, 128)),
)

VOC2012 = DatasetSpec(
    name="voc2012",
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
    citation="Everingham et al., The Pascal Visual Object Classes Challenge: A "
    "Retrospective, IJCV 2015; Hariharan et al., Semantic Contours from "
    "Inverse Detectors, ICCV 2011",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    train_split="trainaug",
    photograph_size=(375, 500),
)
