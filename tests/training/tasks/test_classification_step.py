"""The step of a classifier: its loss against NumPy, its draws, its parts, devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segnext_jax.config import base_config
from segnext_jax.models.initialization import initialize
from segnext_jax.models.normalization import BatchNorm
from segnext_jax.ops import sharding
from segnext_jax.ops.erasing import erase
from segnext_jax.ops.mixing import draw_mixing
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import state as state_lib
from segnext_jax.training import step as training_step
from segnext_jax.training.step import step_keys
from segnext_jax.training.tasks.classification_step import (
    classification_batch,
    soft_cross_entropy,
)
from tests.compiled_text import exchanges_in_loops

NUM_CLASSES, BATCH, SIZE = 5, 16, (32, 48)
# One at which some groups are blended and others cut.
STEP = 5
MEAN, STD = (120.0, 130.0, 140.0), (50.0, 60.0, 70.0)
RULES = optimizer_lib.pretraining_rules()
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (BATCH, *SIZE, 3)).astype(np.uint8)
LABELS = RNG.integers(0, NUM_CLASSES, BATCH).astype(np.int32)
MIX = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "switch_probability": 0.5}


def sgd(rate=0.1, rules=RULES):
    return optimizer_lib.Optimizer(optax.sgd(rate), rules, lambda step: rate)


def make_step(model, optimizer, mesh=None, **options):
    """Return the step; ``options`` are fields of the run, or of classification."""
    config = base_config()
    config.task = "classification"
    config.seed = 3
    config.data.update(mean=MEAN, std=STD)
    config.loss.label_smoothing = 0.1
    config.classification.update(mix_group_size=4, erase_probability=0.5, **MIX)
    for name, value in options.items():
        section = config if name in config else config.classification
        section[name] = value
    whole = None if mesh is None else sharding.replicated(mesh)
    prepare = classification_batch(config, NUM_CLASSES, whole)
    return training_step.make_step(model, optimizer, prepare, config)


class Linear(nn.Module):
    """A network whose scores NumPy can compute: those of the mean colour."""

    @nn.compact
    def __call__(self, images, train):
        assert train and self.has_rng("drop_path")
        pooled = jnp.mean(images, axis=(1, 2))
        return nn.Dense(NUM_CLASSES, use_bias=False, name="head")(pooled)


class Small(nn.Module):
    """A convolution, a BatchNorm, the mean: seconds less to compile than MSCAN."""

    @nn.compact
    def __call__(self, images, train=False):
        maps = nn.Conv(8, (3, 3), (4, 4), name="conv")(images)
        maps = BatchNorm(name="norm")(maps, train)
        pooled = jnp.mean(nn.relu(maps), axis=(1, 2))
        return nn.Dense(NUM_CLASSES, name="head")(pooled)


KERNEL = RNG.standard_normal((3, NUM_CLASSES)).astype(np.float32)


def end_of_linear(**options):
    """Return state and metrics after a step of `Linear`, whose rate is 0.1."""
    optimizer = sgd(rules=(optimizer_lib.Rule("all", ".*"),))
    params = {"head": {"kernel": jnp.asarray(KERNEL)}}
    state = state_lib.create({"params": params, "batch_stats": {}}, optimizer)
    state = state.replace(step=jnp.asarray(STEP, jnp.int32))
    step = jax.jit(make_step(Linear(), optimizer, **options))
    end, metrics = step(state, {"image": IMAGES, "label": LABELS})
    return np.asarray(end.params["head"]["kernel"]), jax.device_get(metrics)


@pytest.fixture(scope="module")
def whole():
    return end_of_linear()


@jax.jit
def draws():
    """Return how groups are mixed, and the noise where images are erased, else nan."""
    keys = step_keys(3, jnp.asarray(STEP))
    untouched = jnp.full((BATCH, *SIZE, 3), jnp.nan)
    return (
        draw_mixing(keys["mixing"], 4, SIZE, **MIX),
        erase(untouched, keys["erasing"], 0.5),
    )


def test_loss_and_gradient_are_those_of_numpy(whole):
    end, metrics = whole
    # The draws are those of the named keys at this step; the rest is plain NumPy.
    mixing, noise = jax.device_get(draws())
    assert mixing.is_cutmix.any() and not mixing.is_cutmix.all()
    images = IMAGES.astype(np.float32)
    targets = np.empty((BATCH, NUM_CLASSES))
    for i in range(BATCH):
        group, place = divmod(i, 4)
        j = 4 * group + 3 - place
        share = float(mixing.share[group])
        if mixing.is_cutmix[group]:
            top, bottom, left, right = mixing.boxes[group]
            images[i, top:bottom, left:right] = IMAGES[j, top:bottom, left:right]
        else:
            images[i] = np.rint(IMAGES[i] * share + IMAGES[j] * (1 - share))
        smooth = np.full((2, NUM_CLASSES), 0.1 / NUM_CLASSES)
        smooth[[0, 1], [LABELS[i], LABELS[j]]] += 0.9
        targets[i] = share * smooth[0] + (1 - share) * smooth[1]
    images = (images - np.array(MEAN)) / np.array(STD)
    features = np.where(np.isnan(noise), images, noise).mean(axis=(1, 2))
    scores = features @ KERNEL
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -(targets * scores).sum() / BATCH
    gradient = features.T @ (np.exp(scores) - targets) / BATCH

    # A grey level that is rounded to the other side: 1/50 of one of 1536 pixels.
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose((KERNEL - end) / 0.1, gradient, rtol=1e-3, atol=1e-4)
    accuracy = (scores.argmax(axis=1) == targets.argmax(axis=1)).mean()
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)


def test_soft_cross_entropy_of_a_certain_label_is_the_usual_one():
    logits = RNG.standard_normal((6, NUM_CLASSES)).astype(np.float32)
    targets = np.eye(NUM_CLASSES, dtype=np.float32)[LABELS[:6]]
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), LABELS[:6]]
    found = soft_cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    assert float(found) == pytest.approx(float(expected.sum()), rel=1e-6)


@pytest.fixture(scope="module")
def one_device():
    return run(sharding.make_mesh(devices=jax.devices()[:1]))


def run(mesh, **options) -> tuple[dict, list[float], str]:
    """Return parameters and losses of three steps, and the text of the program."""
    model = Small()
    optimizer = sgd(0.05)
    state = state_lib.create(initialize(model, seed=0), optimizer)
    state = jax.device_put(state, sharding.replicated(mesh))
    batch = sharding.shard_batch({"image": IMAGES, "label": LABELS}, mesh)
    step = jax.jit(
        make_step(model, optimizer, mesh, **options),
        out_shardings=sharding.replicated(mesh),
    )
    compiled = step.lower(state, batch).compile()
    losses = []
    for _ in range(3):
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses, compiled.as_text()


def test_eight_devices_give_the_losses_of_one(one_device):
    """Groups of four images lie on two devices each; each device draws for all."""
    _, losses, program = run(sharding.make_mesh())
    np.testing.assert_allclose(losses, one_device[1], rtol=1e-5)
    assert len(set(losses)) == 3
    assert " while(" in program
    assert exchanges_in_loops(program) == 0


def test_same_seed_gives_the_same_run_and_another_does_not(one_device):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    again, losses, _ = run(mesh)
    assert losses == one_device[1]
    jax.tree.map(np.testing.assert_array_equal, again, one_device[0])
    assert run(mesh, seed=4)[1] != losses


def test_parts_of_a_batch_have_the_loss_of_the_whole(whole):
    (end, metrics), (expected_end, expected) = end_of_linear(accumulate_steps=4), whole
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert metrics["accuracy"] == expected["accuracy"]
    norms = metrics["gradient_norm"], expected["gradient_norm"]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    np.testing.assert_allclose(end, expected_end, rtol=1e-3, atol=1e-5)
