import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from segnext_jax import convert
from segnext_jax.convert.names import entries, to_dialect
from segnext_jax.models.classifier import MSCANClassifier
from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.segnext import Variant

VARIANT = Variant((8, 16, 24, 40), (1, 1, 1, 1), (2, 2, 2, 1), 0.0, 32, 5)
IMAGES = np.random.default_rng(0).standard_normal((3, 47, 29, 3), np.float32)


@pytest.fixture(scope="module")
def variables():
    """Weights as a file of the encoder with its linear head brings them."""
    generator = np.random.default_rng(1)
    state_dict = {}
    for entry in entries(VARIANT, 11, "classifier"):
        value = 0.1 * generator.standard_normal(entry.shape)
        if entry.official.endswith(("running_var", "norm1.weight", "norm2.weight")):
            value = 1 + value**2
        state_dict[to_dialect(entry.official, "official", "classifier")] = value
    return convert.from_state_dict(state_dict, variant=VARIANT).variables


def test_logits_are_a_linear_function_of_the_mean_of_the_last_stage(variables):
    encoder = MSCAN(
        embed_dims=VARIANT.embed_dims,
        depths=VARIANT.depths,
        mlp_ratios=VARIANT.mlp_ratios,
        drop_path_rate=0.0,
        depthwise_implementation="grouped",
    )
    classifier = MSCANClassifier(VARIANT, 11, depthwise_implementation="grouped")

    # Compiled for one call: half the time without optimisation.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both(variables, images):
        logits = classifier.apply(variables, images)
        inner = {name: tree["backbone"] for name, tree in variables.items()}
        return logits, encoder.apply(inner, images)[-1]

    logits, features = both(variables, jnp.asarray(IMAGES))
    assert features.shape == (3, 2, 1, 40)
    head = variables["params"]["head"]
    wanted = np.asarray(features).mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
    assert logits.shape == (3, 11)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


def test_every_array_has_a_place_in_the_checkpoint(variables):
    images = jnp.asarray(IMAGES)
    shapes = jax.eval_shape(
        lambda: MSCANClassifier(VARIANT, 11).init(jax.random.key(0), images)
    )
    wanted = {path: leaf.shape for path, leaf in flatten_dict(shapes).items()}
    assert {p: v.shape for p, v in flatten_dict(variables).items()} == wanted
