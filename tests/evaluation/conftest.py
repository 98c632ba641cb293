"""The network of the developers' folder, for inference to be applied to."""

from ..models.conftest import make_pair

__all__ = ["make_pair"]
