"""iSAID: background and 15 classes of aerial images.

The order is mmsegmentation's (14 is plane, 15 is harbour); other tools differ. The
colours are those of the official colour masks.

Source: mmseg/datasets/isaid.py in SegNeXt@c87bcae.
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("background", (0, 0, 0)),
    ("ship", (0, 0, 63)),
    ("store_tank", (0, 63, 63)),
    ("baseball_diamond", (0, 63, 0)),
    ("tennis_court", (0, 63, 127)),
    ("basketball_court", (0, 63, 191)),
    ("Ground_Track_Field", (0, 63, 255)),
    ("Bridge", (0, 127, 63)),
    ("Large_Vehicle", (0, 127, 127)),
    ("Small_Vehicle", (0, 0, 127)),
    ("Helicopter", (0, 0, 191)),
    ("Swimming_pool", (0, 0, 255)),
    ("Roundabout", (0, 191, 127)),
    ("Soccer_ball_field", (0, 127, 191)),
    ("plane", (0, 127, 255)),
    ("Harbor", (0, 100, 155)),
)

ISAID = DatasetSpec(
    name="isaid",
    homepage="https://captain-whu.github.io/iSAID",
    citation="Waqas Zamir et al., iSAID: A Large-scale Dataset for Instance "
    "Segmentation in Aerial Images, CVPR Workshops 2019",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
    photograph_size=(896, 896),
)
