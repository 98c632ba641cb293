"""The one way from a run, a model folder or a checkpoint file to its weights.

`segnext_jax.load`, predict, demo, export, evaluate and ``config.init_from``
take it.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from segnext_jax.checkpoints.reading import StoredModel
    from segnext_jax.weights.loading import find, is_there, load, load_network
    from segnext_jax.weights.named import suggestion

# Imported when asked for: the commands' --help needs no jax.
_MODULES = {
    "StoredModel": "loading",
    "find": "loading",
    "is_there": "loading",
    "load": "loading",
    "load_network": "loading",
    "suggestion": "named",
}
__all__ = ["StoredModel", "find", "is_there", "load", "load_network", "suggestion"]


def __getattr__(name: str) -> typing.Any:
    """Import a public name."""
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
