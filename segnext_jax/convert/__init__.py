"""Weights from and to PyTorch: official SegNeXt, mmsegmentation 1.x, JSeg.

`from_file` gives the Flax variables of a file, `merge` starts a network from them,
`to_state_dict` gives them PyTorch's names. torch is imported only when one of its files
is written. `segnext_jax.weights` reads folders, too.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from segnext_jax.convert.detect import Source
    from segnext_jax.convert.from_files import encoder, from_file
    from segnext_jax.convert.merging import merge
    from segnext_jax.convert.summary import Reshaped, Summary
    from segnext_jax.convert.weights import (
        Converted,
        Variables,
        from_state_dict,
        to_state_dict,
    )

# Imported when asked for: the command's --help needs no jax.
_MODULES = {
    "Converted": "weights",
    "Reshaped": "summary",
    "Source": "detect",
    "Summary": "summary",
    "Variables": "weights",
    "encoder": "from_files",
    "from_file": "from_files",
    "from_state_dict": "weights",
    "merge": "merging",
    "to_state_dict": "weights",
}


def __getattr__(name: str) -> typing.Any:
    """Import a public name."""
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Converted",
    "Reshaped",
    "Source",
    "Summary",
    "Variables",
    "encoder",
    "from_file",
    "from_state_dict",
    "merge",
    "to_state_dict",
]
