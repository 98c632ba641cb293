"""Use the network in this folder with jax alone: no segnext_jax is needed.

`pip install jax flatbuffers` is enough: jax reads such programs by flatbuffers.
As a program: `python load_exported.py IMAGES.npy OUTPUTS.npy`. As a module:

    from load_exported import load
    function, metadata = load()
    outputs = function(images)  # see metadata["input"] and metadata["output"]
"""

import hashlib
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export


def load(folder=pathlib.Path(__file__).parent):
    """Return (function of images, metadata) of an exported folder.

    Raises:
      ValueError: If the program is not the one that was written.
    """
    folder = pathlib.Path(folder)
    metadata = json.loads((folder / "metadata.json").read_text())
    entry = metadata["files"]["stablehlo"]
    data = (folder / entry["file"]).read_bytes()
    # Earlier versions noted no checksum.
    if entry.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError(f"{entry['file']} is not what was exported: it is damaged")
    return jax.jit(export.deserialize(bytearray(data)).call), metadata


if __name__ == "__main__":
    function, _ = load()
    np.save(sys.argv[2], jax.device_get(function(np.load(sys.argv[1]))))
