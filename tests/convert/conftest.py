"""Checkpoints of any variant, in any dialect, in which no array is another's."""

import numpy as np
import pytest

from segnext_jax.convert.names import HAS_BATCH_COUNT, entries, to_dialect
from segnext_jax.models.segnext import VARIANTS, Variant


@pytest.fixture(scope="session")
def make_state_dict():
    """A function that makes a state dict as PyTorch would give it."""

    def make(
        variant="tiny", num_classes=150, kind="segmentation", dialect="official", seed=0
    ):
        if not isinstance(variant, Variant):
            variant = VARIANTS[variant]
        state_dict = {}
        for number, entry in enumerate(entries(variant, num_classes, kind)):
            if entry.path is not None:
                value = np.arange(np.prod(entry.shape), dtype=np.float32)
                value = value.reshape(entry.shape) + np.float32(number + seed / 2)
            elif HAS_BATCH_COUNT[dialect]:
                value = np.zeros((), np.int64)
            else:
                continue
            state_dict[to_dialect(entry.official, dialect, kind)] = value
        return state_dict

    return make


@pytest.fixture(scope="session")
def assert_equal():
    """A function that compares two state dicts bit for bit, order included."""

    def check(given, wanted):
        assert list(given) == list(wanted)
        for name, value in wanted.items():
            assert given[name].dtype == value.dtype, name
            np.testing.assert_array_equal(given[name], value, strict=True)

    return check
