"""The quick tests, `launch/test.sh --quick`, call no network."""

import jax
import jax.numpy as jnp
import pytest

from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import SegNeXt


@pytest.mark.parametrize(
    "network", [SegNeXt("tiny", 3), MSCAN()], ids=["whole", "encoder"]
)
def test_a_quick_test_that_calls_a_network_fails(network):
    with pytest.raises(AssertionError, match="a quick test calls no network"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
