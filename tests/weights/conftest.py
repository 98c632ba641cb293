"""Files of published networks, as a rule makes them, on a server of this machine."""

import dataclasses

import numpy as np
import pytest

from segnext_jax.convert import files
from segnext_jax.convert.names import HAS_BATCH_COUNT, entries, to_dialect
from segnext_jax.models.segnext import VARIANTS


def state_dict(num_classes, kind="segmentation", dialect="official"):
    """Return arrays of a tiny network that follow from their names."""
    arrays = {}
    for number, entry in enumerate(entries(VARIANTS["tiny"], num_classes, kind)):
        name = to_dialect(entry.official, dialect, kind)
        if entry.path is not None:
            value = np.cos(np.arange(np.prod(entry.shape)) + number)
            arrays[name] = (1 + value.reshape(entry.shape) / 8).astype(np.float32)
        elif HAS_BATCH_COUNT[dialect]:
            arrays[name] = np.zeros((), np.int64)
    return arrays


@pytest.fixture
def published(file_server, tmp_path, monkeypatch):
    """The server with three files, as the mirror, and an empty cache folder.

    SegNeXt-T has a block a stage: a third of the arrays to write and read.
    """
    tiny = dataclasses.replace(VARIANTS["tiny"], depths=(1, 1, 1, 1))
    monkeypatch.setitem(VARIANTS, "tiny", tiny)
    for name, arrays in {
        "segnext-tiny-cityscapes.pth": state_dict(19),
        "segnext-tiny-ade20k-official.pth": state_dict(150),
        "mscan.pth": state_dict(None, "backbone"),
    }.items():
        files.write(tmp_path / name, arrays, {})
        file_server.files[name] = (tmp_path / name).read_bytes()
    monkeypatch.setenv("SEGNEXT_JAX_MIRROR", file_server.url + "/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return file_server
