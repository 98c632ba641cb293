"""Prepare ImageNet-1K or a folder like it: `python data/imagenet/prepare.py`."""

import sys

from segnext_jax.preparation.command import main
from segnext_jax.preparation.imagenet import ImageNet

if __name__ == "__main__":
    sys.exit(main(ImageNet))
