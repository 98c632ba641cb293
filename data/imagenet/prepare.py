"""Prepare ImageNet-1K or a folder like it: `python data/imagenet/prepare.py`."""

import sys

from segnext_jax.datasets.classification import ImageNet
from segnext_jax.datasets.preparation import main

if __name__ == "__main__":
    sys.exit(main(ImageNet))
