"""The train step: official numbers, devices, draws."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segnext_jax.config import base_config
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt, Variant
from segnext_jax.ops import sharding
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import state as state_lib
from segnext_jax.training.step import STREAMS, make_step, step_keys
from segnext_jax.training.tasks.segmentation_step import segmentation_batch

VARIANT = Variant((8, 16, 16, 24), (1, 0, 0, 1), (2, 2, 2, 2), 0.2, 32, 4)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NUM_STEPS = 10
RULES = optimizer_lib.official_rules()


def steps_of(model, optimizer, average="all", **options):
    """Return what makes the train step for a mesh; ``options`` are fields of data."""
    config = base_config()
    config.loss.average = average
    config.data.update(options)

    def step_on(mesh):
        prepare = segmentation_batch(config, 255)
        return make_step(model, optimizer, prepare, config, sharding.replicated(mesh))

    return step_on


@pytest.fixture(scope="module")
def parts():
    model = SegNeXt(VARIANT, num_classes=5)
    config = base_config()
    config.num_steps = NUM_STEPS
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 3
    optimizer = optimizer_lib.Optimizer.from_config(config)
    return model, optimizer, steps_of(model, optimizer, grey_probability=0.5)


def batches():
    rng = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        labels = rng.integers(0, 5, (8, 32, 48)).astype(np.uint8)
        labels[:, :3] = 255
        images = rng.integers(0, 256, (8, 32, 48, 3)).astype(np.uint8)
        sizes = rng.integers(20, 33, (8, 2)).astype(np.int32)
        yield {"image": images, "label": labels, "size": sizes}


def begin(parts, mesh):
    """Return the state before the first step, its placement, and the jitted step."""
    model, optimizer, step_on = parts
    state = state_lib.create(initialize(model, seed=0), optimizer)
    placement = sharding.state_shardings(state, mesh, min_size=64)
    step = jax.jit(
        step_on(mesh),
        in_shardings=(placement, sharding.batch_sharding(mesh)),
        out_shardings=(placement, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    return state, placement, step


def run(state, placement, step, mesh):
    state = jax.device_put(state, placement)
    losses = []
    for batch in batches():
        state, metrics = step(state, sharding.shard_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.fixture(scope="module")
def one_device_step(parts):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    state, placement, step = begin(parts, mesh)
    batch = sharding.shard_batch(next(batches()), mesh)
    compiled = step.lower(state, batch).compile()
    # On the host, where no step can take it.
    return jax.tree.map(np.array, state), placement, compiled, mesh


@pytest.fixture(scope="module")
def one_device(one_device_step):
    return run(*one_device_step)


@pytest.mark.parametrize("fsdp", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_eight_devices_equal_one(parts, one_device, fsdp, capfd):
    """Also where parameters and moments are spread over two of them."""
    mesh = sharding.make_mesh(fsdp)
    state, losses = run(*begin(parts, mesh), mesh)
    # XLA's warning that activations are gathered whole, and spread again.
    assert "full rematerialization" not in capfd.readouterr().err
    expected_state, expected = one_device
    num_spread = sum(
        not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state)
    )
    # Kernels of 64 values and more, with both moments.
    assert num_spread > 100 if fsdp > 1 else num_spread == 0
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=0)
    assert int(state.step) == NUM_STEPS
    # The same sums in another order; Adam turns rounding of tiny gradients into steps
    # of up to the learning rate, so a few values of a tensor may move by 1e-3 * 10.
    for ours, theirs in zip(
        jax.tree.leaves(state.batch_stats),
        jax.tree.leaves(expected_state.batch_stats),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("fsdp", [2, 8])
def test_spread_parameters_make_the_same_steps(make_network, fsdp):
    """The network of one convolution, so that the default tier has it, too."""
    model = make_network()
    config = base_config()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 0
    optimizer = optimizer_lib.Optimizer.from_config(config)
    parts = model, optimizer, steps_of(model, optimizer, average="valid")
    one = sharding.make_mesh(devices=jax.devices()[:1])
    expected_state, expected = run(*begin(parts, one), one)
    mesh = sharding.make_mesh(fsdp)
    state, losses = run(*begin(parts, mesh), mesh)
    kernel = state.params["backbone"]["patch_embed1"]["kernel"]
    moments = next(s for s in state.optimizer_state if hasattr(s, "nu"))
    for leaf in (kernel, moments.nu["backbone"]["patch_embed1"]["kernel"]):
        assert leaf.addressable_shards[0].data.size == leaf.size / fsdp
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        state.batch_stats,
        expected_state.batch_stats,
    )


def test_training_changes_every_parameter_and_statistic(parts, one_device):
    model, optimizer, _ = parts
    start = state_lib.create(initialize(model, seed=0), optimizer)
    end, _ = one_device
    for before, after in (
        (start.params, end.params),
        (start.batch_stats, end.batch_stats),
    ):
        same = jax.tree.map(lambda a, b: np.array_equal(a, b), before, after)
        assert not any(jax.tree.leaves(same))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_broken_step_changes_nothing_but_its_number(one_device_step, poison):
    state, placement, step, mesh = one_device_step
    state = jax.tree.map(np.array, state)
    state.params["decode_head"]["conv_seg"]["bias"][2] = poison
    before = jax.tree.map(np.copy, state)
    batch = sharding.shard_batch(next(batches()), mesh)
    after, metrics = step(jax.device_put(state, placement), batch)
    assert not np.isfinite(metrics["loss"] + metrics["gradient_norm"])
    assert int(after.step) == 1
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(np.asarray, after.replace(step=0)),
        before.replace(step=0),
    )


def test_an_update_that_is_not_finite_moves_no_parameter(make_network):
    model = make_network()
    transformation = optax.chain(optax.trace(0.9), optax.scale(np.inf))
    optimizer = optimizer_lib.Optimizer(transformation, RULES, lambda step: np.inf)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    parts = model, optimizer, steps_of(model, optimizer, photometric=False)
    state, placement, step = begin(parts, mesh)
    before = jax.tree.map(np.array, state)
    batch = sharding.shard_batch(next(batches()), mesh)
    after, metrics = step(jax.device_put(state, placement), batch)
    assert np.isfinite(metrics["loss"] + metrics["gradient_norm"])
    assert not np.isfinite(metrics["update_norm"])
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)


def test_a_donated_state_is_overwritten_without_copies(one_device_step):
    state, _, step, _ = one_device_step
    copied = re.findall(r" copy\(%?(state_\w+)", step.as_text())
    arrays = [name for name in copied if not re.search("(step|count)_*$", name)]
    assert len(jax.tree.leaves(state)) > 300
    assert not arrays


def test_draws_are_a_function_of_seed_step_and_stream():
    keys = {
        (seed, step, name): jax.random.key_data(key).tolist()
        for seed in (0, 1)
        for step in (0, 1)
        for name, key in step_keys(seed, jnp.asarray(step)).items()
    }
    assert len({tuple(key) for key in keys.values()}) == 2 * 2 * len(STREAMS)
    again = step_keys(1, jnp.asarray(1))["nmf"]
    assert jax.random.key_data(again).tolist() == keys[1, 1, "nmf"]


def test_optimizer_groups_are_counted(parts):
    model, optimizer, _ = parts
    state = state_lib.create(initialize(model, seed=0), optimizer)
    lines = optimizer_lib.summarize(state.params, RULES)
    text = json.dumps(lines)
    assert "head: 13 tensors" in text
    assert "learning rate x10, weight decay x1" in text
    assert "learning rate x1, weight decay x0" in text
