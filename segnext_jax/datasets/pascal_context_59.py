"""Pascal Context: 59 classes, the background ignored.

Alphabetical order of the 459-class names, not the order of the FCN release. The colours
are those of ADE20K's classes with the same numbers.

Source: mmseg/datasets/pascal_context.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.ade20k import ADE20K
from segnext_jax.datasets.spec import DatasetSpec

_CLASSES = """
    aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus
    cabinet car cat ceiling chair cloth computer cow cup curtain dog door fence
    floor flower food grass ground horse keyboard light motorbike mountain mouse
    person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow
    sofa table track train tree truck tvmonitor wall water window wood
"""

PASCAL_CONTEXT_59 = DatasetSpec(
    name="pascal_context_59",
    classes=tuple(_CLASSES.split()),
    colours=ADE20K.colours[1:60],
    photograph_size=(375, 500),
    # Ids of the 60 merged classes; 0 is background.
    official_ids=tuple(range(1, 60)),
    ignored_ids=(0,),
    homepage="https://cs.stanford.edu/~roozbeh/pascal-context",
    citation="Mottaghi et al., The Role of Context for Object Detection and "
    "Semantic Segmentation in the Wild, CVPR 2014",
)
