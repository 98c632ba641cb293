"""StableHLO: one program for several platforms, serialized by `jax.export`."""

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export

from segnext_jax.export.program import Function, Signature

FILE = "model.stablehlo"


def export(
    function: Function, signature: Signature, platforms: Sequence[str]
) -> jax.export.Exported:
    """Lower a function for platforms of which none needs to be at hand.

    Args:
      function: See `program.make_function`.
      signature: What goes in and comes out.
      platforms: Among `options.PLATFORMS`.
    """
    lower = jax.export.export(jax.jit(function), platforms=tuple(platforms))
    return lower(signature.input_spec())


def write(folder: pathlib.Path, exported: jax.export.Exported) -> dict[str, Any]:
    """Write a program into a folder; return what `load_exported` must know of it."""
    data = exported.serialize()
    (folder / FILE).write_bytes(data)
    return {
        "file": FILE,
        "sha256": hashlib.sha256(data).hexdigest(),
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
    }


def runs_here(exported: jax.export.Exported) -> bool:
    """Tell whether jax can run the program on this machine's devices."""
    return jax.export.default_export_platform() in exported.platforms


def read(path: pathlib.Path) -> Callable[[Any], Any]:
    """Return the jitted function that a file holds."""
    return jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
