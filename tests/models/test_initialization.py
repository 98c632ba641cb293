"""Host initialization against the modules' own initializers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt, Variant

NETWORK = SegNeXt(
    Variant((16, 24, 32, 40), (1, 1, 2, 1), (4, 4, 2, 2), 0.0, 64, 8), num_classes=13
)


@pytest.fixture(scope="module")
def both():
    host = traverse_util.flatten_dict(initialize(NETWORK, seed=3), sep="/")
    images = jnp.zeros((1, 32, 32, 3))
    module = jax.device_get(jax.jit(NETWORK.init)(jax.random.key(0), images))
    return host, traverse_util.flatten_dict(module, sep="/")


@pytest.mark.slow  # model.init compiles for seconds.
def test_same_arrays_types_and_constants(both):
    host, module = both
    assert host.keys() == module.keys()
    for path, array in host.items():
        assert array.shape == module[path].shape and array.dtype == module[path].dtype
        if not path.endswith("kernel"):
            np.testing.assert_array_equal(array, module[path])


@pytest.mark.slow
def test_kernels_have_the_same_mean_and_deviation(both):
    host, module = both
    for path in (path for path in host if path.endswith("kernel")):
        for array in (host[path], np.asarray(module[path])):
            expected = module_deviation(path, array.shape)
            # Four standard errors of a sample's deviation, plus that of 366 tests.
            tolerance = 5 / np.sqrt(2 * array.size)
            assert array.std() == pytest.approx(expected, rel=tolerance), path
            assert abs(array.mean()) < 5 * expected / np.sqrt(array.size), path


def module_deviation(path, shape):
    """The official rule, from the kernel's shape in PyTorch's words."""
    if path.endswith("conv_seg/kernel"):
        return 0.01
    area = 1 if len(shape) == 2 else shape[0] * shape[1]
    groups = shape[-1] if len(shape) == 3 else 1
    return np.sqrt(2 / (area * shape[-1] / groups))


def test_seed_and_path_decide():
    first, again = initialize(NETWORK, seed=3), initialize(NETWORK, seed=3)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = initialize(NETWORK, seed=4)
    kernel = first["params"]["decode_head"]["align"]["conv"]["kernel"]
    assert (kernel != other["params"]["decode_head"]["align"]["conv"]["kernel"]).all()
    out = first["params"]["decode_head"]["hamburger"]["ham_out"]["conv"]["kernel"]
    assert (kernel != out).all()


def test_unknown_kind_of_parameter_is_refused():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, images):
            return images * self.param("gain", nn.initializers.ones, ())

    with pytest.raises(ValueError, match=r"got params/gain\. Give it a rule"):
        initialize(Odd(), seed=0)


def test_constants_and_deviations_are_the_official_ones():
    leaves = traverse_util.flatten_dict(initialize(NETWORK, seed=3), sep="/")
    for path, array in leaves.items():
        name = path.rsplit("/", 1)[-1]
        if name == "kernel":
            tolerance = 5 / np.sqrt(2 * array.size)
            expected = module_deviation(path, array.shape)
            assert array.std() == pytest.approx(expected, rel=tolerance), path
        elif name.startswith("layer_scale"):
            assert (array == np.float32(0.01)).all()
        else:
            assert (array == (1.0 if name in ("scale", "var") else 0.0)).all(), path
