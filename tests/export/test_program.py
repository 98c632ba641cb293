"""The exported function equals `segnext_jax.load(...)`, at every size and batch."""

import re

import jax
import jax.export
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.export import stablehlo
from segnext_jax.export.options import PLATFORMS
from segnext_jax.export.program import Signature, make_function
from segnext_jax.predict import predictor

EXACT = {"rtol": 0, "atol": 1e-5}


def photographs(*shape):
    return np.random.default_rng(2).integers(0, 256, (*shape, 3)).astype(np.uint8)


def normalized(images, config):
    return ((images - np.array(config.data.mean)) / config.data.std).astype(np.float32)


@pytest.fixture(scope="module")
def dynamic(network, tmp_path_factory):
    """Logits of any batch and size, through the file, and the program's text."""
    signature = Signature(size=None, batch=None, output="logits")
    function = make_function(network, signature, dtype="float32")
    exported = stablehlo.export(function, signature, PLATFORMS)
    path = tmp_path_factory.mktemp("dynamic") / stablehlo.FILE
    path.write_bytes(exported.serialize())
    return stablehlo.read(path), exported


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 32, 64)])
def test_any_batch_and_size_gives_the_networks_logits(shape, dynamic, network, config):
    call, _ = dynamic
    images = photographs(*shape)
    logits = np.asarray(call(images))
    assert logits.shape == (shape[0], shape[1] // 8, shape[2] // 8, 11)
    assert np.ptp(logits) > 1
    inputs = normalized(images, config)
    wanted = [network.logits(image[None])[0] for image in inputs]
    np.testing.assert_allclose(logits, np.stack(wanted), **EXACT)


def test_program_is_lowered_for_three_platforms_and_draws_nothing(dynamic):
    _, exported = dynamic
    assert exported.platforms == ("cpu", "cuda", "tpu")
    text = exported.mlir_module()
    for word in ("rng", "threefry", "random"):
        assert word not in text
    # Checks of the input's shape are the only calls of functions of the runtime.
    calls = set(re.findall(r"custom_call @(\w+)", text))
    assert calls == {"shape_assertion"}


@pytest.mark.parametrize("shape", [(1, 64, 90), (1, 16, 32)])
def test_size_that_is_no_multiple_is_refused_when_called(shape, dynamic):
    call, _ = dynamic
    with pytest.raises(ValueError, match=r"32\*[hw]"):
        call(photographs(*shape))


def test_normalised_images_give_the_networks_probabilities(network, config):
    signature = Signature(None, batch=1, input="float", output="probabilities")
    function = make_function(network, signature, dtype="float32")
    spec = signature.input_spec()
    assert spec.dtype == np.float32 and spec.shape[0] == 1
    images = photographs(1, 32, 64)
    exported = stablehlo.export(function, signature, ("cpu",))
    probabilities = exported.call(normalized(images, config))
    wanted = network.predict(images[0]).probabilities
    np.testing.assert_allclose(probabilities[0], wanted, **EXACT)


def test_random_bases_and_bfloat16_leave_no_draw_and_no_kernel(config, variables):
    config = config_lib.from_json(config_lib.to_json(config))
    config.model.nmf_eval_bases = "random"
    other = predictor.Predictor(variables, config)
    signature = Signature((32, 64), batch=1)
    function = make_function(other, signature, dtype="bfloat16")
    exported = stablehlo.export(function, signature, PLATFORMS)
    text = exported.mlir_module()
    assert "bf16" in text
    # Where the size is fixed, a GPU's program outside a file has kernels of our own.
    assert "rng" not in text and "custom_call" not in text


@pytest.mark.parametrize(
    "size, batch, message",
    [
        ((512, 500), 1, "multiples of 32.* got 512x500. Use 512x512."),
        ((0, 32), 1, "multiples of 32.* got 0x32. Use 32x32."),
        ((32, 32), 0, "at least one image: got 0"),
    ],
)
def test_impossible_signature_is_refused(size, batch, message):
    with pytest.raises(ValueError, match=message):
        Signature(size, batch)


def test_dimensions_of_inputs_and_outputs():
    dynamic = Signature(None, None, output="logits")
    assert dynamic.input_dims() == ("batch", "height", "width", 3)
    assert dynamic.output_dims(19) == ("batch", "height/8", "width/8", 19)
    fixed = Signature((64, 96), 2)
    assert fixed.input_spec() == jax.ShapeDtypeStruct((2, 64, 96, 3), np.uint8)
    assert fixed.output_dims(19) == (2, 64, 96)
