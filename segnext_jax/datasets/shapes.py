"""Shapes: six classes of textured objects on textured ground, drawn by program.

Class is told by texture and outline; colour says nothing (data/shapes/README.md).
"""

from segnext_jax.datasets.spec import DatasetSpec

# One row per train id: name, (red, green, blue).
_TABLE = (
    ("ground", (96, 96, 96)),
    ("disc", (230, 60, 50)),
    ("square", (250, 170, 30)),
    ("triangle", (240, 230, 70)),
    ("star", (60, 180, 75)),
    ("ring", (60, 130, 245)),
    ("cross", (190, 80, 220)),
)

SHAPES = DatasetSpec(
    name="shapes",
    classes=tuple(name for name, _ in _TABLE),
    colours=tuple(colour for _, colour in _TABLE),
)
