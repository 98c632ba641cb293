"""What MSCAN does in training: frozen parts, blocks computed again, bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from segnext_jax.models.initialization import initialize
from segnext_jax.models.mscan import MSCAN
from segnext_jax.models.normalization import MOMENTS
from segnext_jax.ops import joined_pointwise

# Compiled for one call each: half the time without optimisation.
QUICK = {"xla_backend_optimization_level": 0}
SIZES = {
    "embed_dims": (8, 16),
    "depths": (1, 1),
    "mlp_ratios": (2, 2),
    "depthwise_implementation": "grouped",
}
# Drops one branch of one image: the second block's MLP.
KEY = jax.random.key(4)


def encoder(**options):
    return MSCAN(**{**SIZES, "drop_path_rate": 0.5, **options})


def images():
    return np.random.default_rng(0).standard_normal((2, 32, 48, 3), np.float32)


@pytest.fixture(scope="module")
def variables():
    return initialize(encoder(), seed=0)


def loss_of(model):
    def loss(params, batch_stats, images, key):
        outputs, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop_path": key},
        )
        # The LayerNorm's output has a constant mean square: a cube tells more.
        total = sum(jnp.mean(x.astype(jnp.float32) ** 3) for x in outputs)
        return total, (outputs, updates)

    return loss


def arguments_of(variables):
    params, batch_stats = variables["params"], variables["batch_stats"]
    return params, batch_stats, images(), KEY


def step(model, variables):
    gradient_fn = jax.value_and_grad(loss_of(model), has_aux=True)
    jitted = jax.jit(gradient_fn, compiler_options=QUICK)
    return jax.device_get(jitted(*arguments_of(variables)))


@pytest.fixture(scope="module")
def plain(variables):
    return step(encoder(), variables)


def bytes_kept_for_the_backward_pass(model) -> int:
    """Size of what `jax.vjp` holds beside the parameters; nothing is compiled."""
    variables = initialize(model, seed=0)

    def backward(*arguments):
        return jax.vjp(lambda p: loss_of(model)(p, *arguments[1:])[0], arguments[0])[1]

    kept = jax.eval_shape(backward, *arguments_of(variables))
    params = sum(leaf.nbytes for leaf in jax.tree.leaves(variables["params"]))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept)) - params


def test_a_block_computed_again_keeps_its_input_for_the_backward_pass():
    """By its nature: XLA removes repeated work on CPUs, and with it the saving."""

    @functools.cache
    def kept(depths, remat):
        options = {"remat": remat, "depthwise_implementation": "shifted"}
        return bytes_kept_for_the_backward_pass(encoder(depths=depths, **options))

    def kept_by_one_more_block(stage, remat):
        more = (2, 1) if stage == 1 else (1, 2)
        return kept(more, remat) - kept((1, 1), remat)

    for stage, channels in ((1, 8), (2, 16)):
        side = 2 ** (stage + 1)
        size_of_input = 2 * (32 // side) * (48 // side) * channels * 4
        again = kept_by_one_more_block(stage, remat=True)
        # And the drop path of two branches of two images.
        assert again == size_of_input + 2 * 2 * 4
        assert again < 0.2 * kept_by_one_more_block(stage, remat=False)


def test_blocks_computed_again_change_no_number(variables, plain):
    assert flatten_dict(initialize(encoder(remat=True), seed=0)).keys() == (
        flatten_dict(variables).keys()
    )
    (value, gradients) = step(encoder(remat=True), variables)
    expected_value, expected = plain
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value,
        expected_value,
    )
    # Biases before a BatchNorm have a gradient of 0, and rounding of the largest ones.
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale),
        gradients,
        expected,
    )


def test_frozen_stages_run_as_at_inference(variables, plain):
    """Stage 1: running statistics, no drop path, and nothing of it moves."""
    model = encoder(frozen_stages=1)

    @jax.jit
    def forward(variables, images):
        return model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop_path": KEY},
        )

    outputs, updates = jax.device_get(forward(variables, images()))
    inference = jax.device_get(jax.jit(encoder().apply)(variables, images()))
    for stage, (ours, theirs) in enumerate(zip(outputs, inference, strict=True), 1):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-5) == (stage == 1), stage
    before = flatten_dict(variables["batch_stats"], sep="/")
    for path, value in flatten_dict(updates["batch_stats"], sep="/").items():
        stage = int(path.removeprefix("patch_embed").removeprefix("block")[0])
        assert (value == before[path]).all() == (stage == 1), path
    (_, (_, trained)), _ = plain
    assert not (
        trained["batch_stats"]["patch_embed1"]["proj_1"]["mean"]
        == before["patch_embed1/proj_1/mean"]
    ).any()


def test_frozen_batch_norms_keep_their_statistics_and_leave_no_moments(variables):
    model = encoder(freeze_batch_norm=True, drop_path_rate=0.0)
    outputs, updates = jax.jit(
        lambda *a: model.apply(*a, train=True, mutable=["batch_stats", MOMENTS])
    )(variables, images())
    inference = jax.jit(encoder().apply)(variables, images())
    for ours, theirs in zip(outputs, inference, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert MOMENTS not in updates
    jax.tree.map(
        np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"]
    )


def test_bfloat16_is_the_type_of_activations_alone(variables):
    """Shapes and types are traced: nothing is compiled."""
    model = encoder(dtype=jnp.bfloat16)
    gradient_fn = jax.value_and_grad(loss_of(model), has_aux=True)
    (_, (outputs, updates)), gradients = jax.eval_shape(
        gradient_fn, *arguments_of(variables)
    )
    assert {x.dtype for x in outputs} == {jnp.dtype(jnp.bfloat16)}
    kept = jax.tree.leaves((initialize(model, seed=0), updates, gradients))
    assert {x.dtype for x in kept} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "options",
    [
        {"embed_dims": (8,), "depths": (2,), "mlp_ratios": (2,)},
        {"freeze_batch_norm": True},
        {"remat": True, "frozen_stages": 1},
    ],
)
def test_joined_products_give_the_same(options, monkeypatch):
    """What short types run, in float64: values, statistics and every gradient."""
    with jax.enable_x64(True):
        model = encoder(dtype=jnp.float64, param_dtype=jnp.float64, **options)
        wide = jax.tree.map(np.float64, initialize(model, seed=0))
        wanted = step(model, wide)
        monkeypatch.setattr(joined_pointwise, "joins", lambda *_: True)
        given = step(model, wide)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9)
    jax.tree.map(compare, given, wanted)
