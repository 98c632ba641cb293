"""Prepare Pascal Context: `python data/pascal_context_59/prepare.py --raw_dir=FOLDER`.

59 classes: 59 classes, background ignored.
"""

import sys

from segnext_jax.datasets import get_spec
from segnext_jax.preparation.command import main
from segnext_jax.preparation.pascal_context import PascalContextBuilder


class PascalContext59(PascalContextBuilder):
    """Photographs of VOC 2010, 59 classes, background ignored."""

    spec = get_spec("pascal_context_59")


if __name__ == "__main__":
    sys.exit(main(PascalContext59))
