"""The network: MSCAN encoder, Hamburger decoder, SegNeXt.

`initialize` draws the weights of any of these modules in a second; ``model.init``
compiles for minutes.
"""

from segnext_jax.models.classifier import MSCANClassifier
from segnext_jax.models.hamburger import Hamburger, LightHamHead
from segnext_jax.models.initialization import initialize
from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import VARIANTS, SegNeXt, Variant

__all__ = [
    "MSCAN",
    "VARIANTS",
    "Hamburger",
    "LightHamHead",
    "MSCANClassifier",
    "SegNeXt",
    "Variant",
    "initialize",
]
