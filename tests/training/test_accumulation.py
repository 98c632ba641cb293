"""A batch in parts against the whole batch, and the moving average of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.config import base_config
from segnext_jax.models.initialization import initialize
from segnext_jax.ops import losses, sharding
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import state as state_lib
from segnext_jax.training import step as training_step
from segnext_jax.training.tasks.segmentation_step import segmentation_batch

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
BETA1 = 0.9


def make_optimizer():
    config = base_config()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 0
    config.num_steps = 10**9
    return optimizer_lib.Optimizer.from_config(config)


def make_batch(seed=0, size=8):
    """The share of ignored pixels differs between the images."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (size, 16, 24)).astype(np.uint8)
    for index in range(size):
        labels[index, : 2 * index] = 255
    images = rng.integers(0, 256, (size, 16, 24, 3)).astype(np.uint8)
    sizes = jnp.asarray(np.full((size, 2), (16, 24), np.int32))
    return {"image": jnp.asarray(images), "label": jnp.asarray(labels), "size": sizes}


def make_step(model, loss=None, **options):
    """Return the step; ``loss`` and ``options`` are fields of the configuration."""
    config = base_config()
    # Means and deviations of 0 and 1: the images reach the network as they are.
    config.data.update(mean=MEAN, std=STD, photometric=False)
    config.loss.update(loss or {})
    config.update(options)
    prepare = segmentation_batch(config, ignore_label=255)
    return training_step.make_step(model, make_optimizer(), prepare, config)


def make_state(model, has_average=False):
    variables = jax.tree.map(jnp.asarray, initialize(model, seed=0))
    # Statistics and scores that are not those of a network before its first step.
    rng = np.random.default_rng(1)
    stats = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(100, 200, leaf.shape), leaf.dtype),
        variables["batch_stats"],
    )
    variables["batch_stats"] = stats
    return state_lib.create(variables, make_optimizer(), has_average=has_average)


def gradient_of(state):
    """Adam's mean of gradients after the first step, undone."""
    moments = next(part for part in state.optimizer_state if hasattr(part, "mu"))
    return jax.tree.map(lambda mu: np.asarray(mu) / (1 - BETA1), moments.mu)


WEIGHTS = {"cross_entropy": 0.5, "focal": 2.0, "dice": 1.0}


@pytest.mark.parametrize(
    ("loss", "data"),
    [
        ({}, {"photometric": True}),
        ({"average": "valid"}, {}),
        ({"average": "valid", "weights": WEIGHTS}, {}),
    ],
    ids=["all", "valid", "sum"],
)
def test_parts_equal_the_whole_where_batch_norm_is_frozen(make_network, loss, data):
    with jax.enable_x64(True):
        model = make_network(freeze_batch_norm=True, dtype="float64")
        (whole, whole_metrics), (parts, metrics) = [
            jax.jit(make_step(model, loss, accumulate_steps=parts, data=data))(
                make_state(model), make_batch()
            )
            for parts in (1, 4)
        ]
        assert whole_metrics.keys() == metrics.keys()
        for name, value in whole_metrics.items():
            assert float(metrics[name]) == pytest.approx(float(value), rel=1e-12)
        for ours, theirs in zip(
            jax.tree.leaves((gradient_of(parts), parts.batch_stats)),
            jax.tree.leaves((gradient_of(whole), whole.batch_stats)),
            strict=True,
        ):
            atol = 1e-12 * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=atol)


def test_statistics_move_once_to_those_of_the_whole_batch(make_network):
    with jax.enable_x64(True):
        model = make_network(dtype="float64")
        state, batch = make_state(model), make_batch()
        end, _ = jax.jit(make_step(model, accumulate_steps=4))(state, batch)
        convolution = state.params["backbone"]["patch_embed1"]
        # 8x8 patches times a matrix, in NumPy.
        patches = np.asarray(batch["image"], np.float64).reshape(8, 2, 8, 3, 8, 3)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8 * 8 * 3)
        kernel = np.asarray(convolution["kernel"]).reshape(-1, 16)
        maps = patches @ kernel + np.asarray(convolution["bias"])
        before = state.batch_stats["backbone"]["norm1"]
        after = end.batch_stats["backbone"]["norm1"]
        for name, value in (("mean", maps.mean(0)), ("var", maps.var(0, ddof=1))):
            expected = 0.9 * np.asarray(before[name]) + 0.1 * value
            np.testing.assert_allclose(after[name], expected, rtol=1e-10)


def test_each_part_is_normalised_by_its_own_statistics(make_network):
    """The loss is the mean over images i, i + 4 of parts that know nothing else."""
    model, batch = make_network(), make_batch()
    state = make_state(model)
    _, metrics = jax.jit(make_step(model, accumulate_steps=4))(state, batch)

    @jax.jit
    def loss_of(images, labels):
        logits, _ = model.apply(
            state.variables(), images, train=True, mutable=["batch_stats"]
        )
        return losses.cross_entropy(resize_bilinear(logits, (16, 24)), labels)

    images, labels = np.float32(batch["image"]), np.asarray(batch["label"])
    values = [loss_of(images[part::4], labels[part::4]) for part in range(4)]
    assert float(metrics["loss"]) == pytest.approx(float(np.mean(values)), rel=1e-5)


def test_parts_are_cut_on_the_devices_where_the_images_lie(make_network):
    model, batch = make_network(), make_batch(size=32)
    step = make_step(model, accumulate_steps=2)
    mesh = sharding.make_mesh()
    compiled = (
        jax.jit(
            step,
            in_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh)),
            out_shardings=sharding.replicated(mesh),
        )
        .lower(make_state(model), batch)
        .compile()
    )
    text = compiled.as_text()
    assert "all-reduce" in text
    for exchange in ("all-to-all", "all-gather", "collective-permute"):
        assert exchange not in text
    placed = (
        jax.device_put(make_state(model), sharding.replicated(mesh)),
        jax.device_put(batch, sharding.batch_sharding(mesh)),
    )
    _, metrics = compiled(*placed)
    _, expected = jax.jit(step)(make_state(model), batch)
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5)


@pytest.fixture(scope="module")
def averaging(make_network):
    """A network, and its compiled step that averages weights."""
    model = make_network()
    return model, jax.jit(make_step(model, average_decay=0.8))


def test_average_follows_its_recurrence_and_is_what_is_used(averaging):
    model, step = averaging
    state = make_state(model, has_average=True)
    expected = jax.tree.map(np.asarray, state.variables())
    for seed in range(3):
        state, _ = step(state, make_batch(seed))
        expected = jax.tree.map(
            lambda old, new: 0.8 * old + 0.2 * np.asarray(new),
            expected,
            state.variables(),
        )
    assert state.best_variables() is state.average
    for ours, theirs, trained in zip(
        *map(jax.tree.leaves, (state.average, expected, state.variables())), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert (np.asarray(ours) != np.asarray(trained)).any()


def test_average_changes_nothing_in_the_training(averaging):
    model, step = averaging
    with_average, _ = step(make_state(model, has_average=True), make_batch())
    without, _ = jax.jit(make_step(model))(make_state(model), make_batch())
    assert without.best_variables() == without.variables()
    jax.tree.map(
        np.testing.assert_array_equal, with_average.variables(), without.variables()
    )
