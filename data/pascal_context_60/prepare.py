"""Prepare Pascal Context: `python data/pascal_context_60/prepare.py --raw_dir=FOLDER`.

60 classes: background and 59 classes.
"""

import sys

from segnext_jax.datasets import get_spec
from segnext_jax.preparation.command import main
from segnext_jax.preparation.pascal_context import PascalContextBuilder


class PascalContext60(PascalContextBuilder):
    """Photographs of VOC 2010, background and 59 classes."""

    spec = get_spec("pascal_context_60")


if __name__ == "__main__":
    sys.exit(main(PascalContext60))
