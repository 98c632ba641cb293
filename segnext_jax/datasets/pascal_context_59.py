"""Pascal Context: 59 classes, the background ignored.

Alphabetical order of the 459-class names, not the order of the FCN release.

Source: mmseg/datasets/pascal_context.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("aeroplane", (180, 120, 120)),
    ("bag", (6, 230, 230)),
    ("bed", (80, 50, 50)),
    ("bedclothes", (4, 200, 3)),
    ("bench", (120, 120, 80)),
    ("bicycle", (140, 140, 140)),
    ("bird", (204, 5, 255)),
    ("boat", (230, 230, 230)),
    ("book", (4, 250, 7)),
    ("bottle", (224, 5, 255)),
    ("building", (235, 255, 7)),
    ("bus", (150, 5, 61)),
    ("cabinet", (120, 120, 70)),
    ("car", (8, 255, 51)),
    ("cat", (255, 6, 82)),
    ("ceiling", (143, 255, 140)),
    ("chair", (204, 255, 4)),
    ("cloth", (255, 51, 7)),
    ("computer", (204, 70, 3)),
    ("cow", (0, 102, 200)),
    ("cup", (61, 230, 250)),
    ("curtain", (255, 6, 51)),
    ("dog", (11, 102, 255)),
    ("door", (255, 7, 71)),
    ("fence", (255, 9, 224)),
    ("floor", (9, 7, 230)),
    ("flower", (220, 220, 220)),
    ("food", (255, 9, 92)),
    ("grass", (112, 9, 255)),
    ("ground", (8, 255, 214)),
    ("horse", (7, 255, 224)),
    ("keyboard", (255, 184, 6)),
    ("light", (10, 255, 71)),
    ("motorbike", (255, 41, 10)),
    ("mountain", (7, 255, 255)),
    ("mouse", (224, 255, 8)),
    ("person", (102, 8, 255)),
    ("plate", (255, 61, 6)),
    ("platform", (255, 194, 7)),
    ("pottedplant", (255, 122, 8)),
    ("road", (0, 255, 20)),
    ("rock", (255, 8, 41)),
    ("sheep", (255, 5, 153)),
    ("shelves", (6, 51, 255)),
    ("sidewalk", (235, 12, 255)),
    ("sign", (160, 150, 20)),
    ("sky", (0, 163, 255)),
    ("snow", (140, 140, 140)),
    ("sofa", (250, 10, 15)),
    ("table", (20, 255, 0)),
    ("track", (31, 255, 0)),
    ("train", (255, 31, 0)),
    ("tree", (255, 224, 0)),
    ("truck", (153, 255, 0)),
    ("tvmonitor", (0, 0, 255)),
    ("wall", (255, 71, 0)),
    ("water", (0, 235, 255)),
    ("window", (0, 173, 255)),
    ("wood", (31, 0, 255)),
)

PASCAL_CONTEXT_59 = DatasetSpec(
    name="pascal_context_59",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    photograph_size=(375, 500),
    # Ids of the 60 merged classes; 0 is background.
    official_ids=tuple(range(1, 60)),
    ignored_ids=(0,),
    homepage="https://cs.stanford.edu/~roozbeh/pascal-context",
    citation="Mottaghi et al., The Role of Context for Object Detection and "
    "Semantic Segmentation in the Wild, CVPR 2014",
)
